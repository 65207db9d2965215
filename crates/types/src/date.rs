//! Days of the Gregorian calendar.

/// One day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Since 1 BC.
    pub year: u64,
    /// 1 is January.
    pub month: u64,
    /// 1 is the first.
    pub day: u64,
    /// 0 is 1 January.
    pub day_of_year: u64,
    /// 0 is Sunday.
    pub weekday: u64,
}

impl Date {
    /// So many days after 1 January 1970.
    pub fn of_day(days: u64) -> Self {
        const DAYS_TO_1970: u64 = 719_468;
        const ERA: u64 = 146_097; // days of 400 years
        // Years are counted from March, so that the leap day is the last.
        let from_march = days + DAYS_TO_1970;
        let (era, day_of_era) = (from_march / ERA, from_march % ERA);
        let leap_days = day_of_era / 1460 + day_of_era / 146_096 - day_of_era / 36_524;
        let year_of_era = (day_of_era - leap_days) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let is_before_march = month_from_march >= 10;
        let month = if is_before_march { month_from_march - 9 } else { month_from_march + 3 };
        let year = era * 400 + year_of_era + u64::from(is_before_march);
        let day_of_year = match is_before_march {
            true => day_from_march - 306,
            false => day_from_march + 59 + u64::from(is_leap(year)),
        };
        Self { year, month, day, day_of_year, weekday: (days + 4) % 7 }
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_one_another() {
        let mut expected = Date { year: 1970, month: 1, day: 1, day_of_year: 0, weekday: 4 };
        for day in 0..200_000 {
            assert_eq!(Date::of_day(day), expected, "{day}");
            let february = 28 + u64::from(is_leap(expected.year));
            let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            expected.weekday = (expected.weekday + 1) % 7;
            expected.day_of_year += 1;
            expected.day += 1;
            if expected.day > months[expected.month as usize - 1] {
                (expected.month, expected.day) = (expected.month + 1, 1);
            }
            if expected.month > 12 {
                (expected.year, expected.month, expected.day_of_year) = (expected.year + 1, 1, 0);
            }
        }
    }
}
