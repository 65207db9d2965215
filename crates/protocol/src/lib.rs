//! The bodies of the HTTP API as serde types: what clients send, what they get.
//!
//! Types only; nothing here knows a tokenizer or a socket. Every request type
//! comes with a [`Table`] of the fields that SGLang has and this server does
//! not: [`refuse_unsupported`] walks a body once and names the first of them
//! that is set. Keys in no table and no type are ignored, as upstream does.
//!
//! Upstream: `sglang/srt/managers/io_struct.py`,
//! `sglang/srt/entrypoints/openai/protocol.py`.

pub mod anthropic;
pub mod native;
pub mod ollama;
pub mod openai;
pub mod responses;

mod integer;
mod lists;
mod text_or;
mod unsupported;

pub use lists::{MAX_BATCH_SIZE, OneOrMany, PromptIds, StopStrings};
pub use text_or::TextOr;
pub use unsupported::{Field, FieldError, Table, Unset, refuse_unsupported};
