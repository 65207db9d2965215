//! The rules of the waiting queue: who goes first, who may wait and for how long.
//!
//! Upstream: the scheduling section of `sglang/srt/server_args.py`.

use std::{str::FromStr, time::Duration};

use thiserror::Error;

/// The order in which waiting requests are admitted. Whatever the policy, a request of a
/// higher priority goes first where priorities count ([`QueueRules::priority`]), and those
/// that are equal under it go by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchedulePolicy {
    /// First come, first served. Nobody who comes later is served before.
    #[default]
    Fcfs,
    /// Longest cached prefix first; as `Fcfs` while more than 128 wait.
    Lpm,
    /// Along the radix tree, depth first, the branch with most waiting requests first; as
    /// `Fcfs` while more than 128 wait.
    DfsWeight,
    /// Highest response ratio first: tokens prefilled since a request's arrival over tokens
    /// that it has to prefill itself. Short ones go early, and nobody waits for ever. As
    /// `Fcfs` while more than 128 wait.
    Hrrn,
    /// The fewest tokens to prefill first; while more than 128 wait, cached ones count too.
    ShortestPrefillFirst,
    /// Longest output (`max_new_tokens`) first.
    Lof,
    /// A new order each time, drawn from [`QueueRules::random_seed`].
    Random,
}

/// Names as upstream has them, sorted. `priority` is a name only (upstream's parser knows it
/// and its scheduler does not): arrival, within priorities.
const POLICIES: &[(&str, SchedulePolicy)] = &[
    ("dfs-weight", SchedulePolicy::DfsWeight),
    ("fcfs", SchedulePolicy::Fcfs),
    ("hrrn", SchedulePolicy::Hrrn),
    ("lof", SchedulePolicy::Lof),
    ("lpm", SchedulePolicy::Lpm),
    ("priority", SchedulePolicy::Fcfs),
    ("random", SchedulePolicy::Random),
    ("shortest-prefill-first", SchedulePolicy::ShortestPrefillFirst),
];

/// No policy of that name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` is not one of {}", names())]
pub struct UnknownPolicy {
    name: String,
}

fn names() -> String {
    POLICIES.iter().map(|policy| policy.0).collect::<Vec<_>>().join(", ")
}

impl FromStr for SchedulePolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let found = POLICIES.iter().find(|policy| policy.0 == name);
        found.map(|policy| policy.1).ok_or_else(|| UnknownPolicy { name: name.to_owned() })
    }
}

/// Whom a full pool takes pages from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetractionPolicy {
    /// From those with the fewest generated tokens.
    #[default]
    Length,
    /// From those with the lowest priority, and among them as `Length`.
    Priority,
}

/// How the `priority` of requests counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriorityRules {
    /// A lower number is a higher priority.
    pub low_values_first: bool,
    /// Of requests that name none; `None`: below all that do.
    pub default_value: Option<i64>,
    /// A waiting request takes the place of running ones whose priority is lower by more
    /// than this; `None`: of nobody.
    pub preemption_threshold: Option<u64>,
    /// Whom a full pool takes pages from.
    pub retraction: RetractionPolicy,
}

impl PriorityRules {
    /// Higher goes first.
    pub(crate) fn rank(&self, priority: Option<i64>) -> i64 {
        match priority.or(self.default_value) {
            Some(value) if self.low_values_first => value.saturating_neg(),
            Some(value) => value,
            None => i64::MIN,
        }
    }
}

/// What the waiting queue goes by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueRules {
    /// The order of admission.
    pub policy: SchedulePolicy,
    /// Seeds [`SchedulePolicy::Random`].
    pub random_seed: u64,
    /// Requests that may wait; `None`: any number. One more is refused, or takes the place
    /// of one with a lower priority.
    pub max_queued_requests: Option<usize>,
    /// Requests in one prefill batch; `None`: any number.
    pub prefill_max_requests: Option<usize>,
    /// `None`: priorities do not count.
    pub priority: Option<PriorityRules>,
    /// Where priorities do not count, refuse requests that name one.
    pub refuses_priority: bool,
    /// What waits longer is ended with a 503.
    pub waiting_timeout: Option<Duration>,
    /// What runs longer, counted from its first step, is ended with a 503.
    pub running_timeout: Option<Duration>,
}

impl QueueRules {
    /// How high a request of this priority stands; 0 for all where priorities do not count.
    pub(crate) fn rank(&self, priority: Option<i64>) -> i64 {
        self.priority.map_or(0, |rules| rules.rank(priority))
    }

    /// Whether anybody needs to know the time.
    pub fn has_timeouts(&self) -> bool {
        self.waiting_timeout.is_some() || self.running_timeout.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_upstreams_names() {
        assert!(POLICIES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!("dfs-weight".parse(), Ok(SchedulePolicy::DfsWeight));
        assert_eq!("priority".parse(), Ok(SchedulePolicy::Fcfs));
        let error = "routing-key".parse::<SchedulePolicy>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`routing-key` is not one of dfs-weight, fcfs, hrrn, lof, lpm, priority, random, \
             shortest-prefill-first"
        );
    }

    #[test]
    fn ranks_follow_the_direction_and_none_is_last() {
        let high = PriorityRules::default();
        let ranks = [Some(i64::MAX), Some(3), Some(-3), None].map(|value| high.rank(value));
        assert_eq!(ranks, [i64::MAX, 3, -3, i64::MIN]);
        let low = PriorityRules { low_values_first: true, ..high };
        let ranks = [Some(i64::MIN), Some(3), Some(-3), None].map(|value| low.rank(value));
        assert_eq!(ranks, [i64::MAX, -3, 3, i64::MIN]);
        assert_eq!(PriorityRules { default_value: Some(5), ..low }.rank(None), -5);
        assert_eq!(QueueRules::default().rank(Some(7)), 0);
    }
}
