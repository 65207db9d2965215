//! What the server says about itself.

use serde::{Deserialize, Serialize};
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

/// `/v1/loads?dp_rank=&include=&format=`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadsQuery {
    /// Only this rank.
    pub dp_rank: Option<i64>,
    /// Sections, with commas between them; all by default.
    pub include: Option<String>,
    /// `json` or `prometheus`.
    pub format: Option<String>,
}

/// `/v1/loads`.
#[derive(Debug, Serialize)]
pub struct LoadsResponse<'a> {
    /// ISO 8601, UTC.
    pub timestamp: String,
    /// Of this program.
    pub version: &'a str,
    /// What the engine runs on.
    pub accelerator: &'a str,
    /// Always 1.
    pub num_accelerators: usize,
    /// One entry for each data-parallel rank.
    pub loads: Vec<Load>,
}

/// Load of one rank: the core, and the sections that were asked for.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Unix time, seconds.
    pub timestamp: f64,
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
    /// The same: none waits for a transfer.
    pub num_active_tokens: usize,
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
    /// Prompt tokens since the start that were not found in the cache.
    pub total_prefill_uncached_tokens: u64,
    /// What takes how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<LoadMemory>,
    /// Whether prefill and decode are apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disaggregation: Option<LoadDisaggregation>,
    /// Who waits for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<LoadQueues>,
}

/// Sizes in GiB; `token_capacity` in tokens.
#[derive(Debug, Serialize)]
pub struct LoadMemory {
    /// Weights.
    pub weight_gb: f64,
    /// K/V pool.
    pub kv_cache_gb: f64,
    /// Tokens in the pool.
    pub token_capacity: usize,
}

/// Prefill and decode are together.
#[derive(Debug, Serialize)]
pub struct LoadDisaggregation {
    /// `"null"`.
    pub mode: &'static str,
}

/// Requests by what they wait for.
#[derive(Debug, Serialize)]
pub struct LoadQueues {
    /// For prefill.
    pub waiting: usize,
    /// For the end of a pause.
    pub paused: usize,
}
