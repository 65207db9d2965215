//! What the server says about itself.

use serde::Serialize;
use serde_json::{Map, Value};

/// `/model_info`.
#[derive(Debug, Serialize)]
pub struct ModelInfoResponse<'a> {
    /// As given on the command line.
    pub model_path: &'a str,
    /// The name clients use.
    pub served_model_name: &'a str,
    /// Where the tokenizer came from.
    pub tokenizer_path: &'a str,
    /// Always true: no embedding models.
    pub is_generation: bool,
    /// `--preferred-sampling-params`.
    pub preferred_sampling_params: Option<Value>,
    /// `--weight-version`.
    pub weight_version: &'a str,
    /// `--load-format`.
    pub load_format: Value,
    /// `--reasoning-parser`.
    pub reasoning_parser: Option<String>,
    /// `--tool-call-parser`.
    pub tool_call_parser: Option<String>,
    /// `"null"`: a single server does both halves.
    pub disaggregation_mode: &'a str,
    /// False: text only.
    pub has_image_understanding: bool,
    /// False: text only.
    pub has_audio_understanding: bool,
    /// `config.json`'s.
    pub model_type: &'a str,
    /// `config.json`'s.
    pub architectures: &'a [String],
}

/// One entry of `/server_info`'s `internal_states`.
#[derive(Debug, Serialize)]
pub struct InternalState {
    /// Generated tokens a second, lately.
    pub last_gen_throughput: f64,
    /// What takes how much.
    pub memory_usage: MemoryUsage,
    /// Gauges and counters of the scheduler under their field names.
    #[serde(flatten)]
    pub scheduler: Map<String, Value>,
}

/// Sizes in GiB; `token_capacity` in tokens.
#[derive(Debug, Serialize)]
pub struct MemoryUsage {
    /// Weights.
    pub weight: f64,
    /// K/V pool.
    pub kvcache: f64,
    /// Tokens in the pool.
    pub token_capacity: usize,
    /// What MLX holds now.
    pub active: f64,
    /// The most MLX ever held.
    pub peak: f64,
}

/// `/v1/loads`.
#[derive(Debug, Serialize)]
pub struct LoadsResponse<'a> {
    /// Unix time, seconds.
    pub timestamp: f64,
    /// Of this program.
    pub version: &'a str,
    /// What the engine runs on.
    pub accelerator: &'a str,
    /// Always 1.
    pub num_accelerators: usize,
    /// One entry for each data-parallel rank.
    pub loads: Vec<Load>,
}

/// Load of one rank.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Always 0.
    pub dp_rank: usize,
    /// Requests that decode.
    pub num_running_reqs: usize,
    /// Requests that wait for prefill.
    pub num_waiting_reqs: usize,
    /// Tokens of live requests.
    pub num_used_tokens: usize,
    /// Tokens of live requests and of the cache.
    pub num_total_tokens: usize,
    /// Size of the pool.
    pub max_total_num_tokens: usize,
    /// Most requests in a decode batch.
    pub max_running_requests: usize,
    /// Used share of the pool.
    pub token_usage: f64,
    /// Generated tokens a second, lately.
    pub gen_throughput: f64,
    /// Share of prompt tokens found in the cache.
    pub cache_hit_rate: f64,
    /// Running over most running requests.
    pub utilization: f64,
    /// What takes how much.
    pub memory: MemoryUsage,
}
