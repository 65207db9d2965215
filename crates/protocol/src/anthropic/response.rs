//! What `/v1/messages` answers.

use serde::Serialize;
use serde_json::{Map, Value};

/// The whole answer, or in a stream's first event what is known at its start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessagesResponse<'a> {
    /// `msg_` and a number.
    pub id: &'a str,
    /// Always `message`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Always `assistant`.
    pub role: &'static str,
    /// Reasoning, text and calls; never empty in a whole answer.
    pub content: Vec<OutputBlock<'a>>,
    /// As requested.
    pub model: &'a str,
    /// How it ended.
    #[serde(flatten)]
    pub end: MessageEnd<'a>,
    /// Token counts.
    pub usage: Usage,
}

/// A block of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputBlock<'a> {
    /// What the reasoning parser cut out. It bears no signature, as upstream.
    Thinking {
        /// The text.
        thinking: &'a str,
    },
    /// Text.
    Text {
        /// The text.
        text: &'a str,
    },
    /// What the tool-call parser cut out.
    ToolUse {
        /// Its name.
        id: &'a str,
        /// The function's.
        name: &'a str,
        /// The arguments; empty where a stream is to bring them.
        input: Map<String, Value>,
    },
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MessageEnd<'a> {
    /// `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`.
    pub stop_reason: Option<&'static str>,
    /// Which of `stop_sequences` it was.
    pub stop_sequence: Option<&'a str>,
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the prompt, without those from the cache.
    pub input_tokens: usize,
    /// Always 0: nothing is charged for filling the cache.
    pub cache_creation_input_tokens: usize,
    /// Of the prompt, from the radix cache.
    pub cache_read_input_tokens: usize,
    /// Of the answer.
    pub output_tokens: usize,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// First of all.
    MessageStart {
        /// Without content.
        message: MessagesResponse<'a>,
    },
    /// A sign of life.
    Ping,
    /// A block begins.
    ContentBlockStart {
        /// Its number.
        index: usize,
        /// Still empty.
        content_block: OutputBlock<'a>,
    },
    /// A block goes on.
    ContentBlockDelta {
        /// Its number.
        index: usize,
        /// What is new.
        delta: Delta<'a>,
    },
    /// A block ends.
    ContentBlockStop {
        /// Its number.
        index: usize,
    },
    /// How the answer ended.
    MessageDelta {
        /// Reason and stop string.
        delta: MessageEnd<'a>,
        /// Of the whole answer.
        usage: Usage,
    },
    /// Last of all.
    MessageStop,
    /// Last of all, if the answer cannot go on.
    Error {
        /// Why.
        error: ErrorBody<'a>,
    },
}

impl Event<'_> {
    /// Name of the event, as in its `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::Ping => "ping",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Error { .. } => "error",
        }
    }
}

/// What is new in a block.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Delta<'a> {
    /// Of a `text` block.
    TextDelta {
        /// The new part.
        text: &'a str,
    },
    /// Of a `thinking` block.
    ThinkingDelta {
        /// The new part.
        thinking: &'a str,
    },
    /// Of a `tool_use` block.
    InputJsonDelta {
        /// The new part of the arguments' JSON text.
        partial_json: &'a str,
    },
}

/// An error; as a body of its own it is an [`Event::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorBody<'a> {
    /// Class, e.g. `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// For people.
    pub message: &'a str,
}

/// The answer of `/v1/messages/count_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenCount {
    /// Of the prompt.
    pub input_tokens: usize,
}
