//! Where the time of a step goes on the host, stage by stage.
//!
//! A clock with one hand: `mark` books the time since the mark before it, so the
//! stages of a step add up to the whole step. It always runs: a mark costs tens
//! of nanoseconds.

use std::time::{Duration, Instant};

/// What the engine's thread does within a step, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The scheduler: what runs next, and its pages.
    Schedule,
    /// Page tables, ids and positions as tensors.
    Batch,
    /// The model's graph and the sampler's.
    Graph,
    /// Handing the graph to MLX. On the CPU much of it runs there and then.
    Submit,
    /// Until the sampled ids are there.
    Wait,
    /// The scheduler: tokens to their requests, ends, events.
    Publish,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::Schedule, Self::Batch, Self::Graph, Self::Submit, Self::Wait, Self::Publish];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Batch => "batch build",
            Self::Graph => "graph build",
            Self::Submit => "submit",
            Self::Wait => "wait and read",
            Self::Publish => "publish",
        }
    }
}

/// Time spent in each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes([Duration; Stage::ALL.len()]);

impl StageTimes {
    /// Of one stage.
    pub fn of(&self, stage: Stage) -> Duration {
        self.0[stage as usize]
    }

    /// Of all stages.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, time) in self.0.iter_mut().zip(other.0) {
            *sum += time;
        }
    }
}

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
        self.times.0[stage as usize] += now - self.marked;
        self.marked = now;
    }

    pub(crate) fn times(&self) -> StageTimes {
        self.times
    }
}

#[cfg(test)]
mod tests {
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

        let mut twice = times;
        twice.add(&times);
        assert_eq!(twice.total(), 2 * times.total());
        clock.restart();
        assert_eq!(clock.times(), StageTimes::default());
    }

    #[test]
    fn stages_lie_where_their_numbers_say() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index, "{}", stage.name());
        }
    }
}
