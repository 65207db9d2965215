//! How a step is computed.

use clap::Args;
use serde::Serialize;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Execution")]
pub(crate) struct ExecArgs {
    /// mlx (the device's best), or the name of a backend: paged, sdpa.
    #[arg(long, default_value = "mlx", value_name = "NAME")]
    pub(crate) attention_backend: String,

    /// The backend for prompts, if it is to be another one.
    #[arg(long, value_name = "NAME")]
    pub(crate) prefill_attention_backend: Option<String>,

    /// The backend for decode steps, if it is to be another one.
    #[arg(long, value_name = "NAME")]
    pub(crate) decode_attention_backend: Option<String>,

    /// auto, or the name of a graph runner: compiled (decode steps as CUDA graphs, or as
    /// one node on the CPU), eager (ours).
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(crate) graph_runner: String,

    /// Requests of the largest decode step that is made into a graph (older name:
    /// --cuda-graph-max-bs); larger ones run eagerly. By default as many as the kernels take (64).
    #[arg(long, alias = "cuda-graph-max-bs", value_name = "REQUESTS")]
    pub(crate) cuda_graph_max_bs_decode: Option<usize>,

    /// Runs every step eagerly: graph runner eager.
    #[arg(long, alias = "disable-graph")]
    pub(crate) disable_cuda_graph: bool,

    /// A request's tokens depend on nothing but the request: where it brings no seed, 42 is used.
    /// Needs --device cpu; a GPU's kernels, and with them the order of sums, follow the batch.
    #[arg(long)]
    pub(crate) enable_deterministic_inference: bool,
}
