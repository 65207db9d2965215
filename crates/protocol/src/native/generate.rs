//! `/generate`.
//!
//! Upstream: `GenerateReqInput` in `sglang/srt/managers/io_struct.py`.

use serde::{Deserialize, Serialize};
use types::{FinishReason, TokenId};

use super::{SESSION_TABLE, SamplingJson, SessionParams, sampling, sampling::SAMPLING_TABLE};
use crate::{
    OneOrMany, PromptIds,
    integer::integer,
    openai::CachedTokensDetails,
    unsupported::{Field, Table},
};

/// Exactly one of `text` and `input_ids`; a list of either is a batch.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct GenerateRequest {
    /// Names for the sequences.
    pub rid: Option<OneOrMany<String>>,
    /// Prompts as text.
    pub text: Option<OneOrMany<String>>,
    /// Prompts as token ids.
    pub input_ids: Option<PromptIds>,
    /// For all prompts, or one each.
    #[serde(deserialize_with = "sampling::one_or_many")]
    pub sampling_params: Option<OneOrMany<SamplingJson>>,
    /// Completions begin with reasoning, after which their grammars begin.
    pub require_reasoning: Option<bool>,
    /// Tokens after which reasoning has to end; wins over `custom_params`.
    #[serde(deserialize_with = "integer")]
    pub max_thinking_tokens: Option<i64>,
    /// Server-sent events instead of one answer.
    pub stream: Option<bool>,
    /// Counts towards the per-request metrics; on by default.
    pub log_metrics: Option<bool>,
    /// Adds `prompt_token_ids` to the answer.
    pub return_prompt_token_ids: Option<bool>,
    /// Adds log-probabilities to `meta_info`.
    pub return_logprob: Option<OneOrMany<bool>>,
    /// The prompt's token from which on log-probabilities are reported; -1: none.
    pub logprob_start_len: Option<OneOrMany<i64>>,
    /// The most likely tokens to report at each position.
    pub top_logprobs_num: Option<OneOrMany<i64>>,
    /// Tokens to report at each position.
    pub token_ids_logprob: Option<PromptIds>,
    /// Counts if the server schedules by priority.
    #[serde(deserialize_with = "integer")]
    pub priority: Option<i64>,
    /// What the prompt goes on from.
    pub session_params: Option<SessionParams>,
    /// Adds each token's text to its log-probability.
    pub return_text_in_logprobs: Option<bool>,
}

/// What a `/generate` body may not set.
pub static GENERATE_TABLE: Table = Table {
    unsupported: &[
        Field::empty("audio_data"),
        Field::off("background"),
        Field::empty("bootstrap_host"),
        Field::empty("bootstrap_pair_key"),
        Field::empty("bootstrap_port"),
        Field::empty("bootstrap_room"),
        Field::empty("cache_salt"),
        Field::empty("custom_labels"),
        Field::empty("custom_logit_processor"),
        Field::number("data_parallel_rank", 0.0),
        Field::empty("decision_layout"),
        Field::empty("decode_tp_size"),
        Field::empty("disagg_prefill_dp_rank"),
        Field::empty("encoder_urls"),
        Field::empty("extra_key"),
        Field::empty("image_data"),
        Field::empty("image_max_dynamic_patch"),
        Field::empty("images_config"),
        Field::empty("input_embeds"),
        Field::empty("kv_hints"),
        Field::empty("lora_id"),
        Field::empty("lora_path"),
        Field::empty("max_dynamic_patch"),
        Field::empty("min_dynamic_patch"),
        Field::empty("mm_content_hashes"),
        Field::empty("mm_hashes"),
        Field::empty("mm_processor_kwargs"),
        Field::empty("multi_item_delimiter_indices"),
        Field::empty("positional_embed_overrides"),
        Field::off("return_bytes"),
        Field::off("return_entropy"),
        Field::off("return_flat_raw_output_top_logprobs"),
        Field::off("return_flat_raw_top_logprobs"),
        Field::off("return_hidden_states"),
        Field::off("return_indexer_topk"),
        Field::off("return_routed_experts"),
        Field::off("return_sampling_mask"),
        Field::number("routed_dp_rank", 0.0),
        Field::empty("sampling_logprobs_mode"),
        Field::empty("session_id"),
        Field::empty("token_indices_to_pool"),
        Field::off("use_audio_in_video"),
        Field::empty("video_config"),
        Field::empty("video_data"),
        Field::empty("video_max_dynamic_patch"),
        Field::empty("watermark"),
    ],
    supported: None,
    nested: &[("sampling_params", &SAMPLING_TABLE), ("session_params", &SESSION_TABLE)],
};

/// One sequence of an answer, or one step of it in a stream.
#[derive(Debug, Serialize)]
pub struct GenerateResponse<'a> {
    /// Text so far, or since the last chunk with incremental streaming.
    pub text: &'a str,
    /// Tokens, as far as `text` goes.
    pub output_ids: &'a [TokenId],
    /// Everything else.
    pub meta_info: MetaInfo<'a>,
    /// With `return_prompt_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [TokenId]>,
    /// In the stream of a batch: which sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// `meta_info`.
#[derive(Debug, Serialize)]
pub struct MetaInfo<'a> {
    /// The request's `rid`.
    pub id: &'a str,
    /// `null` while it runs.
    pub finish_reason: Option<&'a FinishReason>,
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// `--weight-version`.
    pub weight_version: &'a str,
    /// How often the request was sent back to the queue.
    pub num_retractions: usize,
    /// Of the completion.
    pub reasoning_tokens: usize,
    /// Tokens generated so far.
    pub completion_tokens: usize,
    /// Prompt tokens found in the radix cache.
    pub cached_tokens: usize,
    /// If there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_tokens_details: Option<CachedTokensDetails>,
    /// Seconds from arrival to the last token; only on finish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2e_latency: Option<f64>,
    /// Unix time; only on finish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_sent_to_client_ts: Option<f64>,
    /// With `return_logprob`.
    #[serde(flatten)]
    pub logprobs: Option<MetaLogprobs>,
}

/// Log-probability, `null` where there is none; token; its text, `null` unless asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenLogprob(pub Option<f32>, pub TokenId, pub Option<String>);

/// Several tokens at each position; `null` where there are none.
pub type TokensLogprobs = Vec<Option<Vec<TokenLogprob>>>;

/// The part of `meta_info` that tells log-probabilities. The first entry of a prompt has
/// none: nothing before it is looked at.
#[derive(Debug, Default, Serialize)]
pub struct MetaLogprobs {
    /// Of the prompt's tokens from `logprob_start_len` on.
    pub input_token_logprobs: Vec<TokenLogprob>,
    /// Of the completion's tokens.
    pub output_token_logprobs: Vec<TokenLogprob>,
    /// Tokens generated so far.
    pub output_token_logprobs_length: usize,
    /// With `top_logprobs_num`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_top_logprobs: Option<TokensLogprobs>,
    /// With `top_logprobs_num`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_top_logprobs: Option<TokensLogprobs>,
    /// With `token_ids_logprob`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_token_ids_logprobs: Option<TokensLogprobs>,
    /// With `token_ids_logprob`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_token_ids_logprobs: Option<TokensLogprobs>,
}
