//! One file per endpoint.

pub(crate) mod abort_request;
pub(crate) mod chat_completions;
pub(crate) mod classify;
pub(crate) mod completions;
pub(crate) mod detokenize;
pub(crate) mod embeddings;
pub(crate) mod encode;
pub(crate) mod flush_cache;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod loads;
pub(crate) mod messages;
pub(crate) mod metrics;
pub(crate) mod model_info;
pub(crate) mod models;
pub(crate) mod ollama;
pub(crate) mod openapi;
pub(crate) mod parse_function_call;
pub(crate) mod rerank;
pub(crate) mod responses;
pub(crate) mod root;
pub(crate) mod score;
pub(crate) mod separate_reasoning;
pub(crate) mod server_info;
pub(crate) mod tokenize;
mod usage;
pub(crate) mod vertex_generate;
