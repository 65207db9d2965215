//! What is told about the run.

use clap::Args;
use serde::Serialize;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Logging")]
pub(crate) struct ObservabilityArgs {
    /// critical, error, warning, info, debug or trace.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: String,

    /// A log line every so many decode steps.
    #[arg(long, default_value_t = 40, value_name = "STEPS")]
    pub(crate) decode_log_interval: usize,
}
