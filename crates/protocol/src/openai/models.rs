//! `/v1/models`.

use serde::Serialize;

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelCard {
    /// Served name.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Unix time of the server's start.
    pub created: u64,
    /// Always `sglang`: gateways tell the runtime by it.
    pub owned_by: &'static str,
    /// Same as `id` for a base model.
    pub root: String,
    /// The base model of an adapter.
    pub parent: Option<String>,
    /// Context length.
    pub max_model_len: usize,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// One card: the model served.
    pub data: Vec<ModelCard>,
}
