//! Endpoints of operators: pauses, profiles, logging, weights.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number};

use crate::unsupported::{Field, Table};

/// What becomes of live requests in a pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseMode {
    /// They end as aborted.
    #[default]
    Abort,
    /// They lose their pages and prefill again afterwards.
    Retract,
    /// They keep their pages.
    InPlace,
}

/// `/pause_generation`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct PauseRequest {
    /// What becomes of live requests.
    pub mode: PauseMode,
}

/// `/continue_generation`: nothing to say. `torch_empty_cache` speaks of an allocator that is
/// not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct ContinueRequest {}

/// Answer of a pause and of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PauseResponse {
    /// For people.
    pub message: &'static str,
    /// `ok`.
    pub status: &'static str,
}

/// `/slow_down`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct SlowDownRequest {
    /// Seconds to sleep after each batch; `null`: none.
    pub forward_sleep_time: Option<f64>,
}

/// `/start_profile`. What is measured is the time of each stage of a step, prefill and decode
/// apart, so `activities` and `profile_by_stage` ask for what happens anyway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct StartProfileRequest {
    /// Folder to write the profile to, as JSON; without it, it is only logged.
    pub output_dir: Option<String>,
    /// Batches after which it ends by itself.
    pub num_steps: Option<usize>,
    /// Names the file; by default the time of the start.
    pub profile_id: Option<String>,
    /// Before the file's name.
    pub profile_prefix: Option<String>,
}

/// What a `/start_profile` body may not set.
pub static START_PROFILE_TABLE: Table = Table {
    unsupported: &[
        Field::empty("profile_stages"),
        Field::off("record_shapes"),
        Field::empty("start_step"),
        Field::off("with_stack"),
    ],
    supported: None,
    nested: &[],
};

/// `/set_internal_state`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct SetInternalStateRequest {
    /// Arguments to change, by name.
    pub server_args: Map<String, serde_json::Value>,
}

/// `/configure_logging`: what is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct ConfigureLoggingRequest {
    /// Whether requests are logged.
    pub log_requests: Option<bool>,
    /// 0 to 3: how much of them.
    pub log_requests_level: Option<Number>,
    /// `text` or `json`.
    pub log_requests_format: Option<String>,
    /// Of the server's own log.
    pub log_level: Option<String>,
    /// Where requests are written if the engine dies.
    pub crash_dump_folder: Option<String>,
}

/// What a `/configure_logging` body may not set.
pub static CONFIGURE_LOGGING_TABLE: Table = Table {
    unsupported: &[
        Field::empty("dump_requests_exclude_meta_keys"),
        Field::empty("dump_requests_folder"),
        Field::empty("dump_requests_threshold"),
    ],
    supported: None,
    nested: &[],
};

/// `/update_weights_from_disk`. Graphs are always made anew, so `recapture_cuda_graph` asks for
/// what happens anyway; `torch_empty_cache` and `token_step` speak of what is not here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct UpdateWeightsFromDiskRequest {
    /// A folder, a GGUF file or a hub id, of the model that runs.
    pub model_path: String,
    /// `--load-format`, if it is to be another one.
    #[serde(default)]
    pub load_format: Option<String>,
    /// Abort what is live instead of waiting for its end.
    #[serde(default)]
    pub abort_all_requests: bool,
    /// From then on in answers.
    #[serde(default)]
    pub weight_version: Option<String>,
    /// Forget what was computed with the old weights.
    #[serde(default = "yes")]
    pub flush_cache: bool,
}

/// What an `/update_weights_from_disk` body may not set.
pub static UPDATE_WEIGHTS_TABLE: Table = Table {
    unsupported: &[Field::off("is_async"), Field::off("keep_pause"), Field::empty("manifest")],
    supported: None,
    nested: &[],
};

/// Answer of `/update_weights_from_disk`; 400 without success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpdateWeightsResponse {
    /// False: the old weights go on.
    pub success: bool,
    /// For people.
    pub message: String,
    /// Requests that a pause holds.
    pub num_paused_requests: usize,
}

/// `/update_weight_version`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct UpdateWeightVersionRequest {
    /// From now on in answers.
    pub new_version: String,
    /// Abort what is live first.
    #[serde(default = "yes")]
    pub abort_all_requests: bool,
}

fn yes() -> bool {
    true
}

/// Answer of `/update_weight_version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpdateWeightVersionResponse {
    /// Always true.
    pub success: bool,
    /// For people.
    pub message: String,
    /// As given.
    pub new_version: String,
}
