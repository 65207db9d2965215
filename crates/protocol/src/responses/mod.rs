//! OpenAI's Responses API.
//!
//! Upstream: `sglang/srt/entrypoints/openai/protocol.py`, from `ResponsesRequest` on.

mod event;
mod request;
mod response;

pub use event::{Event, EventData, PartIndex};
pub use request::{
    ENCRYPTED_REASONING, InputItem, InputPart, LOGPROBS, RESPONSES_TABLE, Reasoning,
    ResponsesRequest, RetrieveQuery, Summary, TextFormat,
};
pub use response::{
    CallOutput, IncompleteDetails, InputTokensDetails, MessageOutput, OutputItem, OutputPart,
    OutputTokensDetails, ReasoningOutput, Response, ResponseError, Status, Usage,
};
