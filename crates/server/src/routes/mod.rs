//! One file per endpoint.

pub(crate) mod abort_request;
pub(crate) mod chat_completions;
pub(crate) mod completions;
pub(crate) mod configure_logging;
pub(crate) mod detokenize;
pub(crate) mod flush_cache;
pub(crate) mod freeze_gc;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod loads;
pub(crate) mod metrics;
pub(crate) mod model_info;
pub(crate) mod models;
pub(crate) mod parse_function_call;
pub(crate) mod pause_generation;
pub(crate) mod profile;
pub(crate) mod root;
pub(crate) mod separate_reasoning;
pub(crate) mod server_info;
pub(crate) mod set_internal_state;
pub(crate) mod slow_down;
pub(crate) mod tokenize;
pub(crate) mod update_weight_version;
pub(crate) mod update_weights_from_disk;
mod usage;
