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

#[cfg(test)]
mod tests {
    /// The page of routes lists the parsers.
    #[test]
    fn the_page_is_up_to_date() {
        let page = include_str!("../../../docs/compat/routes.md");
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        let reasoning: Vec<_> =
            crate::reasoning::REASONING_PARSERS.iter().map(|entry| entry.name).collect();
        let tool_call: Vec<_> =
            crate::tool_call::TOOL_CALL_PARSERS.iter().map(|entry| entry.name).collect();
        for (flag, names) in [("reasoning", reasoning), ("tool-call", tool_call)] {
            let line = format!("- `--{flag}-parser`: {}.", names.join(", "));
            assert!(page.contains(&line), "docs/compat/routes.md lacks {line}");
        }
    }
}
