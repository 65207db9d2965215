//! The rules of the waiting queue, from flags and from upstream's environment variables.

use std::{env, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use engine::{PriorityRules, QueueRules, RetractionPolicy};

use crate::args::{DEFAULT_PREEMPTION_THRESHOLD, ScheduleArgs};

/// Seconds, as upstream has them: no flags, and off unless positive.
const WAITING_TIMEOUT: &str = "SGLANG_REQ_WAITING_TIMEOUT";
const RUNNING_TIMEOUT: &str = "SGLANG_REQ_RUNNING_TIMEOUT";

impl ScheduleArgs {
    /// # Errors
    /// An unknown policy; sizes of zero; flags that mean nothing without another.
    pub(super) fn queue_rules(&self) -> Result<QueueRules> {
        for (flag, value) in [
            ("--max-queued-requests", self.max_queued_requests),
            ("--prefill-max-requests", self.prefill_max_requests),
        ] {
            ensure!(value != Some(0), "{flag} must be at least 1");
        }
        Ok(QueueRules {
            policy: self.schedule_policy.parse().context("--schedule-policy")?,
            random_seed: 0,
            max_queued_requests: self.max_queued_requests,
            prefill_max_requests: self.prefill_max_requests,
            priority: self.priority_rules()?,
            refuses_priority: self.abort_on_priority_when_disabled,
            waiting_timeout: timeout(WAITING_TIMEOUT)?,
            running_timeout: timeout(RUNNING_TIMEOUT)?,
        })
    }

    fn priority_rules(&self) -> Result<Option<PriorityRules>> {
        let retraction = match self.retraction_policy.as_str() {
            "length" => RetractionPolicy::Length,
            "priority" => RetractionPolicy::Priority,
            other => bail!("--retraction-policy: `{other}` is not one of length, priority"),
        };
        let threshold = self.priority_scheduling_preemption_threshold;
        let has_threshold = threshold != DEFAULT_PREEMPTION_THRESHOLD;
        if self.enable_priority_scheduling {
            ensure!(
                !has_threshold || !self.disable_priority_preemption,
                "--priority-scheduling-preemption-threshold contradicts \
                 --disable-priority-preemption"
            );
            return Ok(Some(PriorityRules {
                low_values_first: self.schedule_low_priority_values_first,
                default_value: self.default_priority_value,
                preemption_threshold: (!self.disable_priority_preemption).then_some(threshold),
                retraction,
            }));
        }
        let vain = [
            ("--schedule-policy priority", self.schedule_policy == "priority"),
            ("--retraction-policy priority", retraction == RetractionPolicy::Priority),
            ("--schedule-low-priority-values-first", self.schedule_low_priority_values_first),
            ("--disable-priority-preemption", self.disable_priority_preemption),
            ("--default-priority-value", self.default_priority_value.is_some()),
            ("--priority-scheduling-preemption-threshold", has_threshold),
        ];
        if let Some((flag, _)) = vain.into_iter().find(|(_, given)| *given) {
            bail!("{flag} needs --enable-priority-scheduling");
        }
        Ok(None)
    }
}

fn timeout(name: &str) -> Result<Option<Duration>> {
    let value = env::var_os(name);
    let text = value.as_ref().map(|value| value.to_string_lossy());
    seconds(text.as_deref()).with_context(|| name.to_owned())
}

fn seconds(text: Option<&str>) -> Result<Option<Duration>> {
    let Some(text) = text else { return Ok(None) };
    let seconds: f64 = text.parse().with_context(|| format!("`{text}` is no number"))?;
    ensure!(!seconds.is_nan(), "`{text}` is no number");
    if seconds <= 0.0 {
        return Ok(None);
    }
    // Longer than any duration is never.
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_positive_seconds() {
        assert_eq!(seconds(None).unwrap(), None);
        assert_eq!(seconds(Some("-1")).unwrap(), None);
        assert_eq!(seconds(Some("0")).unwrap(), None);
        assert_eq!(seconds(Some("1.5")).unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(seconds(Some("inf")).unwrap(), None);
        for text in ["soon", "NaN", ""] {
            let error = seconds(Some(text)).unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is no number"));
        }
    }
}
