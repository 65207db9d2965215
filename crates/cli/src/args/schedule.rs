//! Who runs when.

use clap::Args;
use serde::Serialize;

pub(crate) const DEFAULT_PREEMPTION_THRESHOLD: u64 = 10;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Scheduling")]
pub(crate) struct ScheduleArgs {
    /// Order of the waiting queue: fcfs (first come, first served), lpm (longest prefix match),
    /// dfs-weight (along the radix tree, the branch with most requests first), hrrn (waiting
    /// against work), shortest-prefill-first, lof (longest output first), random, or priority
    /// (with --enable-priority-scheduling).
    #[arg(long, default_value = "fcfs", value_name = "POLICY")]
    pub(crate) schedule_policy: String,

    /// Requests that may wait; further ones get a 503.
    #[arg(long, value_name = "N")]
    pub(crate) max_queued_requests: Option<usize>,

    /// Requests in one prefill batch.
    #[arg(long, value_name = "N")]
    pub(crate) prefill_max_requests: Option<usize>,

    /// Requests with a higher `priority` go first, whatever the policy, and take the place of
    /// running ones.
    #[arg(long)]
    pub(crate) enable_priority_scheduling: bool,

    /// With priority scheduling: those that run are left alone.
    #[arg(long)]
    pub(crate) disable_priority_preemption: bool,

    /// Priority of requests that name none; by default below all that do.
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub(crate) default_priority_value: Option<i64>,

    /// Without priority scheduling: requests that name a priority get a 503.
    #[arg(long)]
    pub(crate) abort_on_priority_when_disabled: bool,

    /// A lower number is a higher priority.
    #[arg(long)]
    pub(crate) schedule_low_priority_values_first: bool,

    /// How much higher than this a priority must be to take a running request's place.
    #[arg(long, default_value_t = DEFAULT_PREEMPTION_THRESHOLD, value_name = "N")]
    pub(crate) priority_scheduling_preemption_threshold: u64,

    /// Whom a full pool takes pages from: length (fewest generated tokens), or priority.
    #[arg(long, default_value = "length", value_name = "POLICY")]
    pub(crate) retraction_policy: String,

    /// Above 1 admits later and retracts less.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub(crate) schedule_conservativeness: f64,

    /// Tokens of one prefill batch over all its requests.
    #[arg(long, default_value_t = 16384, value_name = "TOKENS", value_parser = super::token_count::parse)]
    pub(crate) max_prefill_tokens: usize,

    /// Requests that run take a token in every step that prefills a prompt, or a chunk of one.
    #[arg(long)]
    pub(crate) enable_mixed_chunk: bool,

    /// Read each step before the next is launched. On the CPU that is always so.
    #[arg(long)]
    pub(crate) disable_overlap_schedule: bool,
}
