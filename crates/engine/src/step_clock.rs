//! When the current step began, readable from other threads: a watchdog ends
//! the process if a step never ends, which nothing inside the step can do.
//!
//! Upstream: `watchdog_thread` in `sglang/srt/managers/scheduler.py`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Shared between the engine thread and a watchdog.
#[derive(Debug, Clone)]
pub struct StepClock {
    origin: Instant,
    /// Milliseconds after `origin` plus one; 0 between steps.
    started: Arc<AtomicU64>,
}

impl Default for StepClock {
    fn default() -> Self {
        Self { origin: Instant::now(), started: Arc::default() }
    }
}

impl StepClock {
    /// How long the current step has taken so far; `None` between steps.
    pub fn elapsed(&self) -> Option<Duration> {
        let started = self.started.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.origin.elapsed().saturating_sub(Duration::from_millis(started)))
    }

    pub(crate) fn begin(&self) {
        let now = self.origin.elapsed().as_millis() as u64;
        self.started.store(now + 1, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.started.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_only_within_a_step() {
        let clock = StepClock::default();
        let seen = clock.clone();
        assert_eq!(seen.elapsed(), None);
        clock.begin();
        assert!(seen.elapsed().is_some());
        clock.end();
        assert_eq!(seen.elapsed(), None);
    }
}
