//! Anthropic's Messages API.
//!
//! Upstream: `sglang/srt/entrypoints/anthropic/protocol.py`.

mod request;
mod response;

pub use request::{
    Block, MESSAGES_TABLE, Message, MessagesRequest, OutputConfig, OutputFormat, Role, TextBlock,
    Thinking, Tool, ToolChoice,
};
pub use response::{
    Delta, ErrorBody, Event, MessageEnd, MessagesResponse, OutputBlock, TokenCount, Usage,
};
