//! Where the time of steps goes, stage by stage: what the engine measures and
//! `/server_info`, the log and `bench-one-batch` show under the same names.

use std::{fmt::Write, time::Duration};

use serde::{Serialize, Serializer};

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

    /// Books more time on a stage.
    pub fn book(&mut self, stage: Stage, time: Duration) {
        self.0[stage as usize] += time;
    }

    /// Adds up, stage by stage.
    pub fn add(&mut self, other: &Self) {
        for (sum, time) in self.0.iter_mut().zip(other.0) {
            *sum += time;
        }
    }
}

/// Where the time of some steps went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Profile {
    /// Steps.
    pub num_steps: usize,
    /// Of all of them together.
    pub times: StageTimes,
    /// Handing a batch over runs much of it, so that it counts as the device's.
    pub runs_on_submit: bool,
}

impl Profile {
    /// The host's own work, in all steps together.
    pub fn host(&self) -> Duration {
        self.times.total() - self.device()
    }

    /// What the host sees of the device's work: where steps overlap, the part
    /// that the host's work does not hide.
    pub fn device(&self) -> Duration {
        let submit =
            if self.runs_on_submit { self.times.of(Stage::Submit) } else { Duration::ZERO };
        self.times.of(Stage::Wait) + submit
    }

    /// Mean ms of a step in each stage, then the host's and the device's part.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let of_stages = Stage::ALL.map(|stage| (stage.name(), self.mean_ms(self.times.of(stage))));
        let sums = [("host", self.mean_ms(self.host())), ("device", self.mean_ms(self.device()))];
        of_stages.into_iter().chain(sums)
    }

    /// [`Self::figures`] for people, with their shares of a step, under a line that
    /// names the `kind` of steps.
    pub fn table(&self, kind: &str) -> String {
        let mut text = format!("      {kind}, mean of {} steps\n", self.num_steps);
        let total = self.mean_ms(self.times.total());
        for (name, ms) in self.figures() {
            let share = if total > 0.0 { ms / total * 100.0 } else { 0.0 };
            // Writing to a string does not fail.
            let _ = writeln!(text, "        {name:<14} {ms:>10.3} ms {share:>6.1} %");
        }
        text
    }

    fn mean_ms(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e3 / self.num_steps.max(1) as f64
    }
}

/// As `num_steps` and the figures: `schedule_ms`, ..., `host_ms`, `device_ms`.
impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("num_steps", &self.num_steps)?;
        for (name, ms) in self.figures() {
            map.serialize_entry(&(name.replace(' ', "_") + "_ms"), &ms)?;
        }
        map.end()
    }
}

/// Steps of a running engine, by what they run. As JSON what `/server_info` shows
/// as `profile`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StepProfiles {
    /// Steps with tokens of prompts.
    pub prefill: Profile,
    /// Steps with a token for each running request.
    pub decode: Profile,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps, each stage 10, 20, ... 60 ms in all.
    fn profile(runs_on_submit: bool) -> Profile {
        let mut times = StageTimes::default();
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            times.book(stage, Duration::from_millis(10 * (place as u64 + 1)));
        }
        Profile { num_steps: 2, times, runs_on_submit }
    }

    #[test]
    fn stages_lie_where_their_numbers_say() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index, "{}", stage.name());
        }
    }

    #[test]
    fn times_add_up() {
        let mut twice = profile(false).times;
        twice.add(&profile(false).times);
        assert_eq!(twice.total(), Duration::from_millis(420));
        assert_eq!(twice.of(Stage::Graph), Duration::from_millis(60));
    }

    #[test]
    fn figures_are_means_and_the_host_is_what_the_device_is_not() {
        let gpu: Vec<_> = profile(false).figures().collect();
        let expected = [
            ("schedule", 5.0),
            ("batch build", 10.0),
            ("graph build", 15.0),
            ("submit", 20.0),
            ("wait and read", 25.0),
            ("publish", 30.0),
            ("host", 80.0),
            ("device", 25.0),
        ];
        assert_eq!(gpu, expected);
        let cpu: Vec<_> = profile(true).figures().collect();
        assert_eq!(cpu[6..], [("host", 60.0), ("device", 45.0)]);
    }

    #[test]
    fn json_carries_the_figures_by_name() {
        let profiles = StepProfiles { prefill: Profile::default(), decode: profile(true) };
        assert_eq!(
            serde_json::to_value(profiles).unwrap(),
            serde_json::json!({
                "prefill": {
                    "num_steps": 0, "schedule_ms": 0.0, "batch_build_ms": 0.0,
                    "graph_build_ms": 0.0, "submit_ms": 0.0, "wait_and_read_ms": 0.0,
                    "publish_ms": 0.0, "host_ms": 0.0, "device_ms": 0.0,
                },
                "decode": {
                    "num_steps": 2, "schedule_ms": 5.0, "batch_build_ms": 10.0,
                    "graph_build_ms": 15.0, "submit_ms": 20.0, "wait_and_read_ms": 25.0,
                    "publish_ms": 30.0, "host_ms": 60.0, "device_ms": 45.0,
                },
            })
        );
    }

    #[test]
    fn the_table_has_a_line_for_each_figure() {
        let table = profile(false).table("decode");
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[0], "      decode, mean of 2 steps");
        assert_eq!(lines[1], "        schedule            5.000 ms    4.8 %");
        assert!(
            Profile::default().table("prefill").contains("device              0.000 ms    0.0 %")
        );
    }
}
