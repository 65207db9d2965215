//! Calendar time, for logs and file names.

/// A time of day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utc {
    seconds: u64,
    micros: u32,
}

impl Utc {
    /// From seconds since 1970.
    pub fn from_unix(seconds: f64) -> Self {
        Self { seconds: seconds as u64, micros: (seconds.fract() * 1e6) as u32 }
    }

    /// What the clock says.
    pub fn now() -> Self {
        Self::from_unix(crate::state::unix_seconds())
    }

    /// `2026-01-31T23:59:59.123456`.
    pub fn iso(self) -> String {
        format!("{}T{}.{:06}", self.date(), self.time(), self.micros)
    }

    /// `2026-01-31 23:59:59`.
    pub fn stamp(self) -> String {
        format!("{} {}", self.date(), self.time())
    }

    /// `2026-01-31_23-59-59`.
    pub fn file_name(self) -> String {
        format!("{}_{}", self.date(), self.time().replace(':', "-"))
    }

    fn date(self) -> String {
        let (year, month, day) = civil(self.seconds / 86_400);
        format!("{year}-{month:02}-{day:02}")
    }

    fn time(self) -> String {
        let seconds = self.seconds;
        format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }
}

/// Days since 1970-01-01 as year, month and day. Years begin in March here, so
/// that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_780), (2026, 11, 23));
    }

    #[test]
    fn seconds_become_texts() {
        let time = Utc::from_unix(951_868_799.25);
        assert_eq!(time.stamp(), "2000-02-29 23:59:59");
        assert_eq!(time.iso(), "2000-02-29T23:59:59.250000");
        assert_eq!(time.file_name(), "2000-02-29_23-59-59");
    }
}
