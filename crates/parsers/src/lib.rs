//! What generated text means: reasoning, tool calls, and the content between.
//!
//! There is one parser for each format, and it is incremental: a complete
//! answer is parsed as a stream of one piece. So both give the same result
//! however the text is cut, which upstream's two code paths do not.
//!
//! Upstream: `sglang/srt/parser/reasoning_parser.py`,
//! `sglang/srt/function_call/`.

mod detect;
mod harmony;
pub mod reasoning;
mod text;
pub mod tool_call;

pub use detect::{Detected, detect};

use thiserror::Error;

/// A name that no parser has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown {kind} `{name}`; known: {}", known.join(", "))]
pub struct UnknownParser {
    kind: &'static str,
    name: String,
    known: Vec<&'static str>,
}

#[cfg(test)]
mod fixtures;
