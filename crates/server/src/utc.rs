//! Calendar time, for logs and file names.

use types::Date;

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

    /// `2026-01-31T23:59:59.123Z`, as RFC 3339 has it.
    pub fn rfc3339(self) -> String {
        format!("{}T{}.{:03}Z", self.date(), self.time(), self.micros / 1000)
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
        let Date { year, month, day, .. } = Date::of_day(self.seconds / 86_400);
        format!("{year}-{month:02}-{day:02}")
    }

    fn time(self) -> String {
        let seconds = self.seconds;
        format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_texts() {
        let time = Utc::from_unix(951_868_799.25);
        assert_eq!(time.stamp(), "2000-02-29 23:59:59");
        assert_eq!(time.iso(), "2000-02-29T23:59:59.250000");
        assert_eq!(time.rfc3339(), "2000-02-29T23:59:59.250Z");
        assert_eq!(time.file_name(), "2000-02-29_23-59-59");
    }
}
