//! Who runs when.

use clap::Args;
use serde::Serialize;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Scheduling")]
pub(crate) struct ScheduleArgs {
    /// Order of the waiting queue: fcfs, or lpm (longest prefix match).
    #[arg(long, default_value = "fcfs", value_name = "POLICY")]
    pub(crate) schedule_policy: String,

    /// Above 1 admits later and retracts less.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub(crate) schedule_conservativeness: f64,

    /// Tokens of one prefill batch over all its requests.
    #[arg(long, default_value_t = 16384, value_name = "TOKENS")]
    pub(crate) max_prefill_tokens: usize,

    /// Read each step before the next is launched. On the CPU that is always so.
    #[arg(long)]
    pub(crate) disable_overlap_schedule: bool,
}
