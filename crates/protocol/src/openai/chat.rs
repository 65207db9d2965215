//! `/v1/chat/completions`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use types::{MatchedStop, TokenId};

use super::{Metadata, ReasoningEffort, ResponseFormat, SglExt, StreamOptions, ToolCall, Usage};
use crate::{
    OneOrMany, StopStrings, TextOr,
    integer::integer,
    native::{CUSTOM_PARAMS_TABLE, CustomParams, MetaInfo, SESSION_TABLE, SessionParams},
    unsupported::{Field, Table},
};

/// The request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// Echoed; one model is served, so it is not checked.
    pub model: Option<String>,
    /// The old name of `max_completion_tokens`.
    #[serde(deserialize_with = "integer")]
    pub max_tokens: Option<i64>,
    /// To the end of the context unless set.
    #[serde(deserialize_with = "integer")]
    pub max_completion_tokens: Option<i64>,
    /// At least so many.
    #[serde(deserialize_with = "integer")]
    pub min_tokens: Option<i64>,
    /// Samples.
    #[serde(deserialize_with = "integer")]
    pub n: Option<i64>,
    /// Any 64-bit integer.
    #[serde(deserialize_with = "integer")]
    pub seed: Option<i64>,
    /// Text that ends it.
    pub stop: Option<StopStrings>,
    /// Patterns whose match ends it; it stays in the text.
    pub stop_regex: Option<StopStrings>,
    /// Tokens that end it.
    pub stop_token_ids: Option<Vec<Option<i64>>>,
    /// Server-sent events.
    pub stream: Option<bool>,
    /// What the stream reports.
    pub stream_options: Option<StreamOptions>,
    /// The model's own default unless set.
    pub temperature: Option<f64>,
    /// The model's own default unless set.
    pub top_p: Option<f64>,
    /// The model's own default unless set.
    #[serde(deserialize_with = "integer")]
    pub top_k: Option<i64>,
    /// The model's own default unless set.
    pub min_p: Option<f64>,
    /// 0 unless set.
    pub frequency_penalty: Option<f64>,
    /// 0 unless set.
    pub presence_penalty: Option<f64>,
    /// The model's own default unless set.
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of tokens, by id.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Log-probabilities of each token.
    pub logprobs: Option<bool>,
    /// And of so many of the most likely ones.
    #[serde(deserialize_with = "integer")]
    pub top_logprobs: Option<i64>,
    /// EOS does not end it.
    pub ignore_eos: Option<bool>,
    /// On by default.
    pub skip_special_tokens: Option<bool>,
    /// Keeps the stop string in the text.
    pub no_stop_trim: Option<bool>,
    /// Continue the last assistant message instead of answering it.
    pub continue_final_message: Option<bool>,
    /// Variables of the template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// What the answer has to look like.
    pub response_format: Option<ResponseFormat>,
    /// A regular expression for the whole answer.
    pub regex: Option<String>,
    /// A grammar that the answer follows.
    pub ebnf: Option<String>,
    /// Functions that the answer may call.
    pub tools: Option<Vec<Value>>,
    /// `auto`, or `none`: the tools are as if they were not there.
    pub tool_choice: Option<Value>,
    /// On by default; off, the answer has one call at most.
    pub parallel_tool_calls: Option<bool>,
    /// On by default; off, reasoning stays in the content.
    pub separate_reasoning: Option<bool>,
    /// On by default; off, reasoning comes all at once, at its end.
    pub stream_reasoning: Option<bool>,
    /// A variable of the template, and its switch: `none` turns reasoning off, others on.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Other words for it.
    pub reasoning: Option<ReasoningWish>,
    /// Other words for the switch.
    pub thinking: Option<ThinkingWish>,
    /// More sampling parameters.
    pub custom_params: Option<CustomParams>,
    /// Prompt as token ids, instead of what the template makes of `messages`.
    pub input_ids: Option<Vec<i64>>,
    /// Names for the sequences.
    pub rid: Option<OneOrMany<String>>,
    /// Counts if the server schedules by priority.
    #[serde(deserialize_with = "integer")]
    pub priority: Option<i64>,
    /// What the prompt goes on from.
    pub session_params: Option<SessionParams>,
    /// Adds the prompt's tokens to each choice; not in streams.
    pub return_prompt_token_ids: Option<bool>,
    /// Adds the tokens of prompt and answer to each choice; not in streams.
    pub return_token_ids: Option<bool>,
    /// Adds `/generate`'s `meta_info` to each choice; not in streams.
    pub return_meta_info: Option<bool>,
    /// Adds the prompt's tokens to `sglext`.
    pub return_input_ids_in_sglext: Option<bool>,
    /// Adds the answers' tokens to `sglext`.
    pub return_output_ids_in_sglext: Option<bool>,
    /// Adds where cached tokens came from to `sglext`.
    pub return_cached_tokens_details: Option<bool>,
}

/// `reasoning`, as gateways word it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "reasoning as an object")]
pub struct ReasoningWish {
    /// Wins over `reasoning_effort`.
    pub effort: Option<ReasoningEffort>,
    /// Turns reasoning on; false is no wish.
    pub enabled: Option<bool>,
}

/// `thinking`, as Anthropic words it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "thinking as an object")]
pub struct ThinkingWish {
    /// Whether to reason.
    #[serde(rename = "type")]
    pub kind: ThinkingKind,
    /// Tokens after which it has to end.
    pub budget_tokens: Option<i64>,
}

/// Whether to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThinkingKind {
    /// Yes.
    Enabled,
    /// Yes, as much as it takes.
    Adaptive,
    /// No.
    Disabled,
}

/// One turn.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, `tool`, ...
    pub role: String,
    /// Text or text parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Of the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of an earlier answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Of an earlier answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<Value>>,
    /// Which call a `tool` message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A turn that only says something.
    pub fn new(role: &str, content: impl Into<Content>) -> Self {
        Self { role: role.to_owned(), content: Some(content.into()), ..Self::default() }
    }

    /// Of an earlier answer: what was thought, unless that is nothing.
    #[must_use]
    pub fn with_reasoning(self, text: String) -> Self {
        Self { reasoning_content: Some(text).filter(|text| !text.is_empty()), ..self }
    }

    /// Of an earlier answer: its [`call`]s, unless there are none.
    #[must_use]
    pub fn with_calls(self, calls: Vec<Value>) -> Self {
        Self { tool_calls: Some(calls).filter(|calls| !calls.is_empty()), ..self }
    }
}

/// A call as a message has it. `arguments` are a JSON text.
pub fn call(id: Option<&str>, name: &str, arguments: &str) -> Value {
    let mut call = json!({"type": "function", "function": {"name": name, "arguments": arguments}});
    if let Some(id) = id {
        call["id"] = id.into();
    }
    call
}

/// Content of a message.
pub type Content = TextOr<ContentPart>;

/// One part: text, or in an assistant's message thoughts.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ContentPart {
    /// `text`, `image_url`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a `text` part.
    #[serde(default)]
    pub text: Option<String>,
    /// Of a `thinking` part, which may have `text` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
}

impl ContentPart {
    /// A part that is text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: "text".to_owned(), text: Some(text.into()), thinking: None }
    }
}

/// What a chat body may not set.
pub static CHAT_TABLE: Table = Table {
    unsupported: &[
        Field::empty("bootstrap_host"),
        Field::empty("bootstrap_port"),
        Field::empty("bootstrap_room"),
        Field::empty("cache_salt"),
        Field::empty("custom_labels"),
        Field::empty("custom_logit_processor"),
        Field::number("data_parallel_rank", 0.0),
        Field::empty("disagg_prefill_dp_rank"),
        Field::empty("extra_key"),
        Field::empty("function_call"),
        Field::empty("functions"),
        Field::empty("images_config"),
        Field::empty("lora_path"),
        Field::empty("max_dynamic_patch"),
        Field::empty("min_dynamic_patch"),
        Field::empty("mm_processor_kwargs"),
        Field::off("return_flat_raw_output_top_logprobs"),
        Field::off("return_hidden_states"),
        Field::off("return_routed_experts"),
        Field::off("return_sampling_mask"),
        Field::off("return_spec_tokens_details"),
        Field::number("routed_dp_rank", 0.0),
        Field::empty("sampling_logprobs_mode"),
        Field::empty("session_id"),
        Field::empty("task"),
        Field::off("use_audio_in_video"),
        Field::empty("video_config"),
        Field::empty("watermark"),
    ],
    supported: None,
    nested: &[
        ("custom_params", &CUSTOM_PARAMS_TABLE),
        ("messages", &MESSAGE_TABLE),
        ("session_params", &SESSION_TABLE),
    ],
};

/// What a message may not set.
pub static MESSAGE_TABLE: Table = Table {
    unsupported: &[
        Field::empty("phase"),
        Field::off("prefix"),
        Field::empty("tools"),
        Field::empty("function_call"),
        Field::empty("audio"),
    ],
    supported: None,
    nested: &[],
};

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct ChatResponse<'a> {
    /// The first sequence's `rid`.
    pub id: &'a str,
    /// Always `chat.completion`.
    pub object: &'static str,
    /// Unix time.
    pub created: u64,
    /// As requested.
    pub model: &'a str,
    /// One for each sample.
    pub choices: Vec<ChatChoice<'a>>,
    /// Token counts.
    pub usage: Usage,
    /// Version of the weights.
    pub metadata: Metadata,
    /// What else was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sglext: Option<SglExt<'a>>,
}

/// Log-probabilities of an answer.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct ChatLogprobs {
    /// One entry for each token.
    pub content: Vec<ChatTokenLogprob>,
}

/// Log-probability of one token.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChatTokenLogprob {
    /// Its text.
    pub token: String,
    /// The text's bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: Option<f32>,
    /// The most likely tokens there.
    pub top_logprobs: Vec<ChatTopLogprob>,
}

/// One of the most likely tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChatTopLogprob {
    /// Its text.
    pub token: String,
    /// The text's bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: Option<f32>,
}

/// One sample.
#[derive(Debug, Serialize)]
pub struct ChatChoice<'a> {
    /// Its number.
    pub index: usize,
    /// The answer.
    pub message: ChatResponseMessage<'a>,
    /// With `logprobs`.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `length`, `tool_calls` or `abort`.
    pub finish_reason: Option<&'static str>,
    /// The stop string or token that ended it.
    pub matched_stop: Option<&'a MatchedStop>,
    /// With `return_prompt_token_ids` or `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [TokenId]>,
    /// With `return_token_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_token_ids: Option<&'a [TokenId]>,
    /// With `return_meta_info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_info: Option<MetaInfo<'a>>,
}

/// What the assistant said.
#[derive(Debug, Serialize)]
pub struct ChatResponseMessage<'a> {
    /// Always `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: &'a str,
    /// What the reasoning parser cut out.
    pub reasoning_content: Option<&'a str>,
    /// What the tool-call parser cut out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall<'a>>>,
}

/// A piece of a stream.
#[derive(Debug, Serialize)]
pub struct ChatChunk<'a> {
    /// The sequence's `rid`.
    pub id: &'a str,
    /// Always `chat.completion.chunk`.
    pub object: &'static str,
    /// Unix time.
    pub created: u64,
    /// As requested.
    pub model: &'a str,
    /// One, or none in the usage chunk.
    pub choices: Vec<ChatChunkChoice<'a>>,
    /// In the usage chunk, and in all with `continuous_usage_stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// In a chunk of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sglext: Option<SglExt<'a>>,
}

/// What is new in a sample.
#[derive(Debug, Serialize)]
pub struct ChatChunkChoice<'a> {
    /// Its number.
    pub index: usize,
    /// The new part.
    pub delta: ChatDelta<'a>,
    /// With `logprobs`: of the tokens that are new.
    pub logprobs: Option<ChatLogprobs>,
    /// Only in the sample's last chunk, which has no content.
    pub finish_reason: Option<&'static str>,
    /// The stop string or token that ended it.
    pub matched_stop: Option<&'a MatchedStop>,
}

/// The new part of a message.
#[derive(Debug, Default, Serialize)]
pub struct ChatDelta<'a> {
    /// In the first chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    /// Reasoning. Always there: OpenAI's client knows the name only if it comes.
    pub reasoning_content: Option<&'a str>,
    /// A piece of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[ToolCall<'a>; 1]>,
}
