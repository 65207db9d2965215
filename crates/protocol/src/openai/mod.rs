//! The OpenAI-style endpoints, with SGLang's extensions.

mod chat;
mod completions;
mod embeddings;
mod error;
mod models;
mod reasoning;
mod response_format;
mod scoring;
mod sglext;
mod tools;
mod usage;

pub use chat::{
    CHAT_TABLE, ChatChoice, ChatChunk, ChatChunkChoice, ChatDelta, ChatLogprobs, ChatMessage,
    ChatRequest, ChatResponse, ChatResponseMessage, ChatTokenLogprob, ChatTopLogprob, Content,
    ContentPart, MESSAGE_TABLE, ReasoningWish, ThinkingKind, ThinkingWish, call,
};
pub use completions::{
    COMPLETION_TABLE, CompletionChoice, CompletionChunk, CompletionLogprobs, CompletionRequest,
    CompletionResponse, Prompt,
};
pub use embeddings::{
    EMBEDDING_TABLE, EmbeddingObject, EmbeddingRequest, EmbeddingResponse, EmbeddingVector,
};
pub use error::ErrorResponse;
pub use models::{ModelCard, ModelList};
pub use reasoning::ReasoningEffort;
pub use response_format::{AnswerGrammar, JsonSchemaFormat, ResponseFormat};
pub use scoring::{
    ClassifyData, ClassifyRequest, ClassifyResponse, RerankRequest, RerankResult, SCORE_TABLE,
    ScoreRequest, ScoreResponse,
};
pub use sglext::{CachedTokensDetails, SglExt};
pub use tools::{FunctionCall, ToolCall};
pub use usage::{CompletionTokensDetails, PromptTokensDetails, StreamOptions, Usage};

use serde::Serialize;

/// `metadata` of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// `--weight-version`.
    pub weight_version: String,
}
