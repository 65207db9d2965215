//! Control and tokenizer endpoints.

use serde::{Deserialize, Serialize};
use types::TokenId;

use crate::{
    OneOrMany, PromptIds,
    openai::{ChatMessage, MESSAGE_TABLE, ReasoningEffort},
    unsupported::Table,
};

/// `/abort_request`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct AbortRequest {
    /// Which request; its batch entries and samples go with it.
    pub rid: Option<String>,
    /// Every live request.
    pub abort_all: bool,
}

/// `/flush_cache?timeout=`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FlushCacheQuery {
    /// Seconds to wait for the engine to become idle.
    pub timeout: f64,
}

/// `/tokenize`: exactly one of `prompt` and `messages`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, expecting = "a JSON object")]
pub struct TokenizeRequest {
    /// Text, or several.
    pub prompt: Option<OneOrMany<String>>,
    /// A conversation, rendered with the chat template.
    pub messages: Option<Vec<ChatMessage>>,
    /// BOS and the like; on by default, for `prompt` only.
    pub add_special_tokens: Option<bool>,
    /// For `messages`; on by default.
    pub add_generation_prompt: Option<bool>,
    /// For `messages`: leave the last assistant message open.
    pub continue_final_message: bool,
    /// Variables of the template.
    pub chat_template_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    /// As a chat has it.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Functions that the answer may call.
    pub tools: Option<Vec<serde_json::Value>>,
    /// Which of them the prompt tells of.
    pub tool_choice: Option<serde_json::Value>,
}

/// What a `/tokenize` body may not set.
pub static TOKENIZE_TABLE: Table =
    Table { unsupported: &[], supported: None, nested: &[("messages", &MESSAGE_TABLE)] };

/// Lists for a batch, bare values otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenizeResponse {
    /// Token ids.
    pub tokens: OneOrMany<Vec<TokenId>>,
    /// How many.
    pub count: OneOrMany<usize>,
    /// The model's context length.
    pub max_model_len: usize,
}

/// `/detokenize`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct DetokenizeRequest {
    /// Ids, or a list of lists.
    pub tokens: PromptIds,
    /// On by default.
    #[serde(default)]
    pub skip_special_tokens: Option<bool>,
}

/// Text for each list of ids.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DetokenizeResponse {
    /// A list for a batch.
    pub text: OneOrMany<String>,
}
