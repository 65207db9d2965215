//! Measures the stages of a step on the engine's thread.
//!
//! A clock with one hand: `mark` books the time since the mark before it, so the
//! stages of a step add up to the whole step. It always runs: a mark costs tens
//! of nanoseconds.

use std::time::Instant;

use types::{Stage, StageTimes};

/// The clock.
#[derive(Debug)]
pub(crate) struct StageClock {
    marked: Instant,
    times: StageTimes,
}

impl StageClock {
    pub(crate) fn new() -> Self {
        Self { marked: Instant::now(), times: StageTimes::default() }
    }

    /// Starts a step at zero.
    pub(crate) fn restart(&mut self) {
        *self = Self::new();
    }

    /// `stage` ends now.
    pub(crate) fn mark(&mut self, stage: Stage) {
        let now = Instant::now();
        self.times.book(stage, now - self.marked);
        self.marked = now;
    }

    pub(crate) fn times(&self) -> StageTimes {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn stages_add_up_to_the_step() {
        let start = Instant::now();
        let mut clock = StageClock::new();
        for stage in Stage::ALL.into_iter().chain([Stage::Schedule]) {
            clock.mark(stage);
        }
        let times = clock.times();
        assert!(times.total() <= start.elapsed());
        let sum: Duration = Stage::ALL.into_iter().map(|stage| times.of(stage)).sum();
        assert_eq!(sum, times.total());
        clock.restart();
        assert_eq!(clock.times(), StageTimes::default());
    }
}
