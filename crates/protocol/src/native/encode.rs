//! `/encode` and `/classify`.
//!
//! Upstream: `EmbeddingReqInput` in `sglang/srt/managers/io_struct.py`.

use serde::{Deserialize, Serialize};
use types::{FinishReason, TokenId};

use crate::{
    OneOrMany, PromptIds,
    unsupported::{Field, Table},
};

/// Exactly one of `text` and `input_ids`; a list of either is a batch.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct EncodeRequest {
    /// Names for the prompts.
    pub rid: Option<OneOrMany<String>>,
    /// Prompts as text.
    pub text: Option<OneOrMany<String>>,
    /// Prompts as token ids.
    pub input_ids: Option<PromptIds>,
    /// Length of the embeddings, where the model has several.
    pub dimensions: Option<i64>,
    /// Counts towards the per-request metrics; on by default.
    pub log_metrics: Option<bool>,
    /// Adds `prompt_token_ids` to the answer.
    pub return_prompt_token_ids: Option<bool>,
    /// Counts if the server schedules by priority.
    pub priority: Option<i64>,
}

/// What such a body may not set. What it says of sampling has no meaning.
pub static ENCODE_TABLE: Table = Table {
    unsupported: &[
        Field::empty("audio_data"),
        Field::off("background"),
        Field::empty("decision_layout"),
        Field::empty("embed_override_token_id"),
        Field::empty("embed_overrides"),
        Field::empty("image_data"),
        Field::empty("input_embeds"),
        Field::off("is_cross_encoder_request"),
        Field::empty("lora_id"),
        Field::empty("lora_path"),
        Field::empty("multi_item_delimiter_indices"),
        Field::empty("positional_embed_overrides"),
        Field::off("return_pooled_hidden_states"),
        Field::empty("token_indices_to_pool"),
        Field::empty("video_data"),
    ],
    supported: None,
    nested: &[],
};

/// The vector of one prompt.
#[derive(Debug, Serialize)]
pub struct EncodeResponse<'a> {
    /// An embedding, or a score for each label.
    pub embedding: Vec<f32>,
    /// Everything else.
    pub meta_info: EncodeMeta<'a>,
    /// With `return_prompt_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [TokenId]>,
}

/// `meta_info` of a request without a completion.
#[derive(Debug, Serialize)]
pub struct EncodeMeta<'a> {
    /// The request's `rid`.
    pub id: &'a str,
    /// Always of the length 0.
    pub finish_reason: Option<&'a FinishReason>,
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// `--weight-version`.
    pub weight_version: &'a str,
    /// How often the request was sent back to the queue.
    pub num_retractions: usize,
    /// Seconds from arrival to the end.
    pub e2e_latency: Option<f64>,
    /// Unix time.
    pub response_sent_to_client_ts: Option<f64>,
}
