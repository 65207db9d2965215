//! `strftime_now(format)`: today's date for templates that mention it.
//!
//! The time is an argument of the rendering, so that a prompt is a function of
//! its inputs.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind, Value};
use types::Date;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The function, for a rendering that happens at `now`.
pub(super) fn function(now: SystemTime) -> Value {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = Time::from_unix(seconds);
    Value::from_function(move |format: String| time.format(&format))
}

/// A moment, UTC.
#[derive(Debug, Clone, Copy)]
struct Time {
    date: Date,
    second_of_day: u64,
}

impl Time {
    fn from_unix(seconds: u64) -> Self {
        Self { date: Date::of_day(seconds / 86_400), second_of_day: seconds % 86_400 }
    }

    fn format(&self, format: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('-') => out.push_str(unpadded(&self.directive(chars.next())?)),
                    directive => out.push_str(&self.directive(directive)?),
                },
                c => out.push(c),
            }
        }
        Ok(out)
    }

    fn directive(&self, directive: Option<char>) -> Result<String, Error> {
        let Date { year, month, day, day_of_year, weekday } = self.date;
        let (hour, minute) = (self.second_of_day / 3600, self.second_of_day / 60 % 60);
        let month_name = MONTHS[month as usize - 1];
        let weekday_name = WEEKDAYS[weekday as usize];
        let short = |name: &str| name[..3].to_owned();
        let hour12 = (hour + 11) % 12 + 1;
        Ok(match directive {
            Some('%') => "%".to_owned(),
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            Some('j') => format!("{:03}", day_of_year + 1),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{hour12:02}"),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{:02}", self.second_of_day % 60),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => short(month_name),
            Some('A') => weekday_name.to_owned(),
            Some('a') => short(weekday_name),
            Some('w') => weekday.to_string(),
            Some('F') => self.format("%Y-%m-%d")?,
            Some('T') => self.format("%H:%M:%S")?,
            Some('D') => self.format("%m/%d/%y")?,
            Some('R') => self.format("%H:%M")?,
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            other => {
                let name = other.map(String::from).unwrap_or_default();
                let detail = format!("strftime_now: unsupported directive '%{name}'");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        })
    }
}

fn unpadded(padded: &str) -> &str {
    match padded.trim_start_matches(['0', ' ']) {
        "" => "0",
        trimmed => trimmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        for (seconds, expected) in [
            (0, "Thu 1970-01-01 00:00:00 001 12 AM"),
            (951_782_399, "Mon 2000-02-28 23:59:59 059 11 PM"),
            (951_782_400, "Tue 2000-02-29 00:00:00 060 12 AM"),
            (1_709_251_199, "Thu 2024-02-29 23:59:59 060 11 PM"),
            (1_735_689_599, "Tue 2024-12-31 23:59:59 366 11 PM"),
            (1_767_225_600, "Thu 2026-01-01 00:00:00 001 12 AM"),
            (4_107_542_400, "Mon 2100-03-01 00:00:00 060 12 AM"),
            (13_574_563_200, "Tue 2400-02-29 00:00:00 060 12 AM"),
        ] {
            let text = Time::from_unix(seconds).format("%a %F %T %j %I %p").unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn directives_of_templates() {
        let time = Time::from_unix(1_720_170_303); // 5 July 2024, 09:05:03
        let format = |format| time.format(format).unwrap();
        assert_eq!(format("%d %b %Y"), "05 Jul 2024");
        assert_eq!(format("%B %-d, %Y; %A"), "July 5, 2024; Friday");
        assert_eq!(format("%e|%y|%-H:%M|100%%"), " 5|24|9:05|100%");
        assert_eq!(
            time.format("%Q").unwrap_err().detail(),
            Some("strftime_now: unsupported directive '%Q'")
        );
        assert!(time.format("%").is_err());
    }
}
