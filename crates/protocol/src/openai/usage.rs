//! Token counts and when a stream reports them.

use serde::{Deserialize, Serialize};

/// `usage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Each prompt once, however many samples it has.
    pub prompt_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// All samples together.
    pub completion_tokens: usize,
    /// With `--enable-cache-report`.
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    /// Of the completion.
    pub reasoning_tokens: usize,
    /// If there was reasoning.
    pub completion_tokens_details: Option<CompletionTokensDetails>,
}

/// What completion tokens were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CompletionTokensDetails {
    /// Not part of the answer.
    pub reasoning_tokens: usize,
}

/// Where prompt tokens came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    /// From the radix cache.
    pub cached_tokens: usize,
}

/// `stream_options`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    pub include_usage: Option<bool>,
    /// Usage in every chunk, whatever `include_usage` says.
    pub continuous_usage_stats: Option<bool>,
}
