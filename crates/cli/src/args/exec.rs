//! How a step is computed.

use clap::Args;
use serde::Serialize;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Execution")]
pub(crate) struct ExecArgs {
    /// mlx (the device's best), or the name of a backend: paged, sdpa.
    #[arg(long, default_value = "mlx", value_name = "NAME")]
    pub(crate) attention_backend: String,

    /// auto, or the name of a graph runner: eager (ours).
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(crate) graph_runner: String,
}
