//! The parsers as a service.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `/parse_function_call`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct ParseFunctionCallRequest {
    /// What to parse.
    pub text: String,
    /// The functions that may be called.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// Its format; the server's own if it is left out.
    #[serde(default)]
    pub tool_call_parser: Option<String>,
}

/// Calls, and the text without them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParseFunctionCallResponse {
    /// What is no call.
    pub normal_text: String,
    /// In the order of the text.
    pub calls: Vec<ParsedCall>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParsedCall {
    /// Its number in the text.
    pub tool_index: usize,
    /// Of the function.
    pub name: String,
    /// A JSON text.
    pub parameters: String,
}

/// `/separate_reasoning`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "a JSON object")]
pub struct SeparateReasoningRequest {
    /// What to separate.
    pub text: String,
    /// Its format.
    pub reasoning_parser: String,
    /// The parts as lists too.
    #[serde(default)]
    pub return_blocks: bool,
}

/// The text in its two roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeparateReasoningResponse {
    /// What was thought.
    pub reasoning_text: String,
    /// What was answered.
    pub text: String,
    /// With `return_blocks`.
    #[serde(flatten)]
    pub blocks: Option<ReasoningBlocks>,
}

/// The same as lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasoningBlocks {
    /// Those of the type `reasoning`.
    pub reasoning_blocks: Vec<String>,
    /// Those of the type `text`.
    pub text_blocks: Vec<String>,
    /// All, in order.
    pub blocks: Vec<ReasoningBlock>,
}

/// A part of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasoningBlock {
    /// `reasoning` or `text`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The part.
    pub text: String,
}
