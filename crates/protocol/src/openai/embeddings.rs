//! `/v1/embeddings`.
//!
//! Upstream: `EmbeddingRequest` in `sglang/srt/entrypoints/openai/protocol.py`.

use serde::{Deserialize, Serialize};

use super::{Prompt, Usage};
use crate::{
    OneOrMany,
    integer::integer,
    unsupported::{Field, Table},
};

/// The body. `user` and `model` are taken and change nothing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct EmbeddingRequest {
    /// A text, token ids, or a list of either.
    pub input: Prompt,
    /// `float` or `base64`.
    #[serde(default)]
    pub encoding_format: Option<String>,
    /// Length of the embeddings, where the model has several.
    #[serde(default, deserialize_with = "integer")]
    pub dimensions: Option<i64>,
    /// Names for the inputs.
    #[serde(default)]
    pub rid: Option<OneOrMany<String>>,
    /// Counts if the server schedules by priority.
    #[serde(default)]
    pub priority: Option<i64>,
}

/// What an embedding body may not set.
pub static EMBEDDING_TABLE: Table = Table {
    unsupported: &[
        Field::empty("embed_override_token_id"),
        Field::empty("embed_overrides"),
        Field::empty("lora_path"),
    ],
    supported: None,
    nested: &[],
};

/// The answer.
#[derive(Debug, Serialize)]
pub struct EmbeddingResponse<'a> {
    /// `list`.
    pub object: &'static str,
    /// In the order of the inputs.
    pub data: Vec<EmbeddingObject>,
    /// As the server was started with.
    pub model: &'a str,
    /// Of all inputs.
    pub usage: Usage,
}

/// One input's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbeddingObject {
    /// `embedding`.
    pub object: &'static str,
    /// Place of the input.
    pub index: usize,
    /// The vector.
    pub embedding: EmbeddingVector,
}

/// A vector as asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EmbeddingVector {
    /// `float`.
    Numbers(Vec<f32>),
    /// `base64` of little-endian f32.
    Base64(String),
}
