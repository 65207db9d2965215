//! Log lines, on standard error, in SGLang's shape: `[time] text`.

use std::{
    io::{IsTerminal, stderr},
    sync::OnceLock,
};

use anyhow::{Result, bail};
use server::Utc;
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

/// Changes the level of the log that [`init`] has started.
static RELOAD: OnceLock<Reload> = OnceLock::new();

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Starts logging. `RUST_LOG`, if set, overrides the level.
///
/// # Errors
/// An unknown level.
pub(crate) fn init(level: &str) -> Result<()> {
    let level = match known(level) {
        Ok(level) => level,
        Err(message) => bail!("--log-level {message}"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Stamp)
        .with_target(false)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    // A second start in one process (tests) keeps the first subscriber.
    if builder.try_init().is_ok() {
        RELOAD.get_or_init(|| {
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        });
    }
    Ok(())
}

/// Changes the level while the program runs.
///
/// # Errors
/// An unknown level, or a log that is not ours.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let filter = EnvFilter::new(known(level).map_err(|message| format!("log_level {message}"))?);
    RELOAD.get().ok_or("log_level cannot be changed here")?(filter)
}

/// The name that `tracing` has for a level.
fn known(level: &str) -> Result<&'static str, String> {
    let name = level.to_lowercase();
    LEVELS.iter().find(|entry| entry.0 == name).map(|entry| entry.1).ok_or_else(|| {
        let known: Vec<_> = LEVELS.iter().map(|entry| entry.0).collect();
        format!("{level} is not one of {}", known.join(", "))
    })
}

/// `[2026-01-31 23:59:59]`, in UTC.
struct Stamp;

impl FormatTime for Stamp {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "[{}]", Utc::now().stamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_level_lists_the_known() {
        let error = init("loud").unwrap_err().to_string();
        assert!(error.starts_with("--log-level loud is not one of critical, error"), "{error}");
    }
}
