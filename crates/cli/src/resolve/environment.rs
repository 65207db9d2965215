//! Upstream's environment variables for which it has no flags.
//!
//! Upstream: `sglang/srt/environ.py`. Timeouts of the queue are in `queue`.

use std::{env, time::Duration};

use anyhow::{Context, Result, bail, ensure};

const AUDIT_LEVEL: &str = "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY";
const HEALTH_GENERATION: &str = "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION";
const HEALTH_TIMEOUT: &str = "SGLANG_HEALTH_CHECK_TIMEOUT";
const LOG_EXCEEDED: &str = "SGLANG_LOG_REQUEST_EXCEEDED_MS";

/// Whether each step's bookkeeping is to be proved. Upstream has levels of it; here is one.
///
/// # Errors
/// The variable is no number.
pub(crate) fn audits() -> Result<bool> {
    let Some(level) = variable(AUDIT_LEVEL) else { return Ok(false) };
    let level: i64 = level.parse().with_context(|| format!("{AUDIT_LEVEL}: `{level}`"))?;
    Ok(level > 0)
}

/// Whether `/health` asks the engine for a token.
///
/// # Errors
/// The variable is neither true nor false.
pub(crate) fn health_generation() -> Result<bool> {
    variable(HEALTH_GENERATION).map_or(Ok(true), |text| flag(&text).context(HEALTH_GENERATION))
}

/// How long a health probe waits; `None`: as long as it does by default.
///
/// # Errors
/// The variable is not a positive number of seconds.
pub(crate) fn health_timeout() -> Result<Option<Duration>> {
    let Some(text) = variable(HEALTH_TIMEOUT) else { return Ok(None) };
    let seconds: f64 = text.parse().with_context(|| format!("{HEALTH_TIMEOUT}: `{text}`"))?;
    ensure!(seconds > 0.0, "{HEALTH_TIMEOUT}: `{text}` is not positive");
    let timeout = Duration::try_from_secs_f64(seconds);
    timeout.map(Some).with_context(|| format!("{HEALTH_TIMEOUT}: `{text}`"))
}

/// What a request must have taken for a line in the request log at its end; of zero, as it is by
/// default, or less: nothing.
///
/// # Errors
/// The variable is no number.
pub(crate) fn log_exceeded() -> Result<Duration> {
    let Some(text) = variable(LOG_EXCEEDED) else { return Ok(Duration::ZERO) };
    let ms: i64 = text.parse().with_context(|| format!("{LOG_EXCEEDED}: `{text}`"))?;
    Ok(Duration::from_millis(ms.max(0) as u64))
}

fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The words that upstream takes.
fn flag(text: &str) -> Result<bool> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" => true,
        "false" | "0" | "no" | "n" => false,
        _ => bail!("`{text}` is neither true nor false"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_words() {
        for (text, expected) in [("true", true), ("1", true), ("False", false), ("n", false)] {
            assert_eq!(flag(text).unwrap(), expected, "{text}");
        }
        assert_eq!(flag("on").unwrap_err().to_string(), "`on` is neither true nor false");
    }
}
