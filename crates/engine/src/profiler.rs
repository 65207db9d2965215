//! `--profile`: where the time of a running server's steps goes, as tables in the
//! log and for `/server_info`.
//!
//! Where steps overlap, one pass of the loop launches a batch and reads the one
//! before it. The time goes to the batch it was spent on, so that a prompt that
//! decode steps wait for is not booked as theirs.

use std::time::{Duration, Instant};

use scheduler::ForwardMode;
use types::{Profile, Stage, StageTimes, StepProfiles};

/// Between two tables: often enough to watch a load change, seldom enough for the
/// log of a day.
const INTERVAL: Duration = Duration::from_secs(10);

/// What one pass of the loop did, besides the time it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) launched: Option<ForwardMode>,
    pub(crate) read: Option<ForwardMode>,
}

/// Adds up steps, and says when it is time for a table.
#[derive(Debug)]
pub(crate) struct Profiler {
    profiles: StepProfiles,
    /// When the last tables were due, and the steps they counted.
    logged: (Instant, usize),
}

impl Profiler {
    pub(crate) fn new(now: Instant) -> Self {
        Self { profiles: StepProfiles::default(), logged: (now, 0) }
    }

    pub(crate) fn profiles(&self) -> StepProfiles {
        self.profiles
    }

    /// Adds a pass. One that launched nothing and read nothing had no batch.
    pub(crate) fn add(&mut self, times: &StageTimes, pass: Pass, runs_on_submit: bool) {
        if let Some(mode) = pass.launched {
            let profile = self.of(mode);
            profile.num_steps += 1;
            profile.runs_on_submit = runs_on_submit;
        }
        for stage in Stage::ALL {
            let mode = match stage {
                Stage::Wait | Stage::Publish => pass.read.or(pass.launched),
                _ => pass.launched.or(pass.read),
            };
            if let Some(mode) = mode {
                self.of(mode).times.book(stage, times.of(stage));
            }
        }
    }

    /// The tables, if there are new steps and the last ones are old enough.
    pub(crate) fn due(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.logged.0) < INTERVAL { None } else { self.tables(now) }
    }

    /// The tables, if there are new steps.
    pub(crate) fn tables(&mut self, now: Instant) -> Option<String> {
        let StepProfiles { prefill, decode } = self.profiles;
        let num_steps = prefill.num_steps + decode.num_steps;
        if num_steps == self.logged.1 {
            return None;
        }
        self.logged = (now, num_steps);
        Some(format!(
            "profile since the start\n{}{}",
            prefill.table("prefill"),
            decode.table("decode")
        ))
    }

    fn of(&mut self, mode: ForwardMode) -> &mut Profile {
        match mode {
            ForwardMode::Extend => &mut self.profiles.prefill,
            ForwardMode::Decode => &mut self.profiles.decode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTEND: Option<ForwardMode> = Some(ForwardMode::Extend);
    const DECODE: Option<ForwardMode> = Some(ForwardMode::Decode);

    /// Schedule takes 1 ms, ... publish 6 ms.
    fn times() -> StageTimes {
        let mut times = StageTimes::default();
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            times.book(stage, Duration::from_millis(place as u64 + 1));
        }
        times
    }

    fn ms(profile: &Profile) -> [u128; 6] {
        Stage::ALL.map(|stage| profile.times.of(stage).as_millis())
    }

    #[test]
    fn time_goes_to_the_batch_it_was_spent_on() {
        let mut profiler = Profiler::new(Instant::now());
        for (launched, read) in
            [(EXTEND, None), (DECODE, EXTEND), (DECODE, DECODE), (None, DECODE), (None, None)]
        {
            profiler.add(&times(), Pass { launched, read }, true);
        }
        let StepProfiles { prefill, decode } = profiler.profiles();
        assert_eq!((prefill.num_steps, decode.num_steps), (1, 2));
        assert_eq!(ms(&prefill), [1, 2, 3, 4, 10, 12]);
        assert_eq!(ms(&decode), [3, 6, 9, 12, 10, 12]);
        // On the CPU a submit is the device's.
        assert_eq!(decode.device(), Duration::from_millis(22));
        assert_eq!(decode.host(), Duration::from_millis(30));
    }

    #[test]
    fn tables_come_every_interval_with_new_steps_and_at_the_end() {
        let start = Instant::now();
        let mut profiler = Profiler::new(start);
        assert_eq!(profiler.due(start + 2 * INTERVAL), None, "no step");
        profiler.add(&times(), Pass { launched: DECODE, read: DECODE }, false);
        assert_eq!(profiler.due(start + INTERVAL / 2), None, "too early");
        let text = profiler.due(start + INTERVAL).unwrap();
        assert!(text.contains("prefill, mean of 0 steps"), "{text}");
        assert!(text.contains("decode, mean of 1 steps\n        schedule            1.000 ms"));
        assert_eq!(profiler.due(start + 3 * INTERVAL), None, "nothing new");
        profiler.add(&times(), Pass { launched: DECODE, read: DECODE }, false);
        assert_eq!(profiler.due(start + INTERVAL + INTERVAL / 2), None, "too early again");
        let last = profiler.tables(start + INTERVAL + INTERVAL / 2).unwrap();
        assert!(last.contains("decode, mean of 2 steps"), "{last}");
    }
}
