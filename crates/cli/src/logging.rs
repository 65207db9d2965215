//! Log lines, on standard error, in SGLang's shape: `[time] text`.

use std::io::{IsTerminal, stderr};

use anyhow::{Result, bail};
use tracing_subscriber::{
    EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

/// Level names of upstream (Python's) and of `tracing`.
const LEVELS: &[(&str, &str)] = &[
    ("critical", "error"),
    ("error", "error"),
    ("warning", "warn"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];

/// Starts logging. `RUST_LOG`, if set, overrides the level.
///
/// # Errors
/// An unknown level.
pub(crate) fn init(level: &str) -> Result<()> {
    let level = level.to_lowercase();
    let Some((_, level)) = LEVELS.iter().find(|entry| entry.0 == level) else {
        let known: Vec<_> = LEVELS.iter().map(|entry| entry.0).collect();
        bail!("--log-level {level} is not one of {}", known.join(", "));
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(*level));
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Stamp)
        .with_target(false)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .try_init();
    Ok(())
}

/// `[2026-01-31 23:59:59]`, in UTC.
struct Stamp;

impl FormatTime for Stamp {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |duration| duration.as_secs());
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(w, "[{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}]")
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
    fn unknown_level_lists_the_known() {
        let error = init("loud").unwrap_err().to_string();
        assert!(error.starts_with("--log-level loud is not one of critical, error"), "{error}");
    }
}
