//! What `/v1/responses` answers.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::openai::ChatTokenLogprob;

/// The answer, or what is known of it yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response {
    /// `resp_` and a number.
    pub id: String,
    /// Always `response`.
    pub object: &'static str,
    /// Unix time.
    pub created_at: u64,
    /// As requested.
    pub model: String,
    /// Reasoning, messages and calls.
    pub output: Vec<OutputItem>,
    /// How far it is.
    pub status: Status,
    /// Token counts, at the end.
    pub usage: Option<Usage>,
    /// As requested.
    pub parallel_tool_calls: bool,
    /// As requested.
    pub tool_choice: Value,
    /// As requested.
    pub tools: Vec<Value>,
    /// Why it failed.
    pub error: Option<ResponseError>,
    /// Why it is incomplete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// As requested.
    pub instructions: Option<String>,
    /// As requested.
    pub max_output_tokens: Option<i64>,
    /// As requested.
    pub previous_response_id: Option<String>,
    /// As requested.
    pub reasoning: Option<Value>,
    /// Whether it can be asked for.
    pub store: bool,
    /// Whether it was answered before its end.
    pub background: bool,
    /// As requested.
    pub temperature: Option<f64>,
    /// As requested, or plain text.
    pub text: Value,
    /// As requested.
    pub top_p: Option<f64>,
    /// Always `disabled`.
    pub truncation: &'static str,
    /// As requested.
    pub user: Option<String>,
    /// As requested.
    pub metadata: Option<Map<String, Value>>,
}

/// How far a response, or an item of it, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// More is to come.
    InProgress,
    /// It is whole.
    Completed,
    /// It was cut off.
    Incomplete,
    /// It could not be made.
    Failed,
    /// It was given up.
    Cancelled,
}

/// Something of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// What the reasoning parser cut out.
    Reasoning(ReasoningOutput),
    /// Text.
    Message(MessageOutput),
    /// What the tool-call parser cut out.
    FunctionCall(CallOutput),
}

/// Reasoning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReasoningOutput {
    /// `rs_` and a number.
    pub id: String,
    /// One `summary_text` with all of the text, if a summary was asked for.
    pub summary: Vec<OutputPart>,
    /// One `reasoning_text`, once it is whole.
    pub content: Vec<OutputPart>,
    /// The text in a form that clients send back, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_content: Option<String>,
    /// How far it is.
    pub status: Status,
}

/// Text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageOutput {
    /// `msg_` and a number.
    pub id: String,
    /// Always `assistant`.
    pub role: &'static str,
    /// One `output_text`, once it is whole.
    pub content: Vec<OutputPart>,
    /// How far it is.
    pub status: Status,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallOutput {
    /// `fc_` and a number.
    pub id: String,
    /// The call's name, for its output.
    pub call_id: String,
    /// The function's.
    pub name: String,
    /// A JSON text, once it is whole.
    pub arguments: String,
    /// How far it is.
    pub status: Status,
}

/// A piece of a content.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputPart {
    /// Of a message.
    OutputText {
        /// The text.
        text: String,
        /// Always empty.
        annotations: [(); 0],
        /// Of every token of the answer, if asked for.
        logprobs: Vec<ChatTokenLogprob>,
    },
    /// Of reasoning.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// Of reasoning's summary.
    SummaryText {
        /// The text.
        text: String,
    },
}

/// Why a response failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResponseError {
    /// `server_error`, or `invalid_prompt`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Why a response is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IncompleteDetails {
    /// Always `max_output_tokens`.
    pub reason: &'static str,
}

/// Token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the prompt.
    pub input_tokens: usize,
    /// Where they came from.
    pub input_tokens_details: InputTokensDetails,
    /// Of the answer.
    pub output_tokens: usize,
    /// What they were for.
    pub output_tokens_details: OutputTokensDetails,
    /// Both.
    pub total_tokens: usize,
}

/// Where the prompt's tokens came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InputTokensDetails {
    /// From the radix cache.
    pub cached_tokens: usize,
    /// Always 0: nothing is charged for filling the cache.
    pub cache_write_tokens: usize,
}

/// What the answer's tokens were for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OutputTokensDetails {
    /// Reasoning.
    pub reasoning_tokens: usize,
}
