//! `/v1/score`, `/v1/rerank` and `/v1/classify`.
//!
//! Upstream: `ScoringRequest`, `V1RerankReqInput` and `ClassifyRequest` in
//! `sglang/srt/entrypoints/openai/protocol.py`.

use serde::{Deserialize, Serialize};

use super::{Content, Prompt, Usage};
use crate::{
    OneOrMany, PromptIds,
    integer::integer,
    unsupported::{Field, Table},
};

/// The body of `/v1/score`: query and items both as text, or both as token ids.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct ScoreRequest {
    /// Before each item, or after it.
    pub query: Option<Prompt>,
    /// What is scored.
    pub items: Option<Prompt>,
    /// Tokens whose probability after the text is asked for; one list for all items or one
    /// each.
    pub label_token_ids: Option<PromptIds>,
    /// Of the labels alone.
    pub apply_softmax: Option<bool>,
    /// What logits are divided by.
    pub temperature: Option<f64>,
    /// Adds the logarithms.
    pub return_token_logprobs: Option<bool>,
    /// The item comes before the query.
    pub item_first: Option<bool>,
    /// Echoed.
    pub model: Option<String>,
}

/// What a scoring body may not set.
pub static SCORE_TABLE: Table = Table {
    unsupported: &[
        Field::empty("embed_override_token_id"),
        Field::empty("item_embed_overrides"),
        Field::empty("query_embed_overrides"),
        Field::off("return_pooled_hidden_states"),
        Field::empty("score_extraction_token"),
    ],
    supported: None,
    nested: &[],
};

/// The answer.
#[derive(Debug, Serialize)]
pub struct ScoreResponse<'a> {
    /// For each item, of each label.
    pub scores: Vec<Vec<f32>>,
    /// With `return_token_logprobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_logprobs: Option<Vec<Vec<f32>>>,
    /// As in the request.
    pub model: &'a str,
    /// Of all items.
    pub usage: Usage,
    /// `scoring`.
    pub object: &'static str,
}

/// The body of `/v1/rerank`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct RerankRequest {
    /// What is looked for.
    pub query: Content,
    /// Where.
    pub documents: Vec<Content>,
    /// For the template of a model that takes instructions.
    #[serde(default)]
    pub instruct: Option<String>,
    /// Documents in the answer, if fewer than all.
    #[serde(default, deserialize_with = "integer")]
    pub top_n: Option<i64>,
    /// On by default.
    #[serde(default)]
    pub return_documents: Option<bool>,
}

/// A document and its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RerankResult {
    /// Higher is closer.
    pub score: f32,
    /// `null` with `return_documents` false.
    pub document: Option<String>,
    /// Its place in the request.
    pub index: usize,
    /// Always `null`.
    pub meta_info: Option<()>,
}

/// The body of `/v1/classify`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct ClassifyRequest {
    /// Echoed.
    #[serde(default)]
    pub model: Option<String>,
    /// A text, token ids, or a list of either.
    pub input: Prompt,
    /// Names for the inputs.
    #[serde(default)]
    pub rid: Option<OneOrMany<String>>,
    /// Counts if the server schedules by priority.
    #[serde(default)]
    pub priority: Option<i64>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct ClassifyResponse<'a> {
    /// Of this answer.
    pub id: String,
    /// `list`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    /// As in the request.
    pub model: &'a str,
    /// In the order of the inputs.
    pub data: Vec<ClassifyData<'a>>,
    /// Of all inputs.
    pub usage: Usage,
}

/// One input's label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassifyData<'a> {
    /// Place of the input.
    pub index: usize,
    /// The most likely.
    pub label: &'a str,
    /// Of all labels.
    pub probs: Vec<f32>,
    /// How many there are.
    pub num_classes: usize,
}
