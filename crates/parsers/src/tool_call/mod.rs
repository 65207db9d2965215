//! Tool calls in generated text.
//!
//! What is malformed comes out as text, whole and as it was written. A stream
//! may have announced a call before it turns out malformed; it then says so
//! ([`ToolEvent::Broken`]), and a complete answer shows the text instead.
//! White space around calls is not content.

mod events;
mod gemma4;
mod glm;
mod gpt_oss;
mod json_array;
mod llama3;
mod marked;
mod mistral;
mod object;
mod pythonic;
mod registry;
mod schema;
mod structure;
mod tagged_json;
mod tools;
mod xml;

use std::{fmt, sync::Arc};

pub(crate) use events::Calls;
pub use registry::{JSON_ARRAY, TOOL_CALL_PARSERS, ToolCallEntry, find};
pub use structure::Structure;
pub use tools::{ToolError, Tools};

use serde_json::Value;

use crate::text::{Rest, Until};

/// What a piece of text brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// Content.
    Text(String),
    /// A call of this function begins.
    Name(String),
    /// More of the call's arguments, a JSON text.
    Arguments(String),
    /// The call is complete.
    End,
    /// The call that began is malformed; this is its text.
    Broken(String),
    /// A call of a function that is not among the tools; it is left out.
    Unknown(String),
}

/// How one format spells calls.
pub(crate) trait ToolCallParser: Send + fmt::Debug {
    /// Reads from the beginning of the text that has arrived and says how many
    /// bytes it has read; `None` if it needs more to go on. What is read does
    /// not depend on how much more there is.
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize>;
}

/// Passes content on up to the next marker: how many bytes that is, and the
/// marker if it comes next.
pub(crate) fn read_text(
    rest: &mut Rest<'_>,
    markers: &[&'static str],
    calls: &mut Calls,
) -> Option<Result<usize, &'static str>> {
    match rest.until(markers) {
        Until::Marker { at: 0, marker } => Some(Err(marker)),
        Until::Safe(0) => None,
        Until::Marker { at: len, .. } | Until::Safe(len) => {
            calls.text(&rest.text[..len]);
            Some(Ok(len))
        }
    }
}

/// JSON with white space as Python's `json.dumps` writes it.
fn dump(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", list(items.iter().map(dump).collect())),
        Value::Object(pairs) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), dump(value))
            };
            format!("{{{}}}", list(pairs.iter().map(pair).collect()))
        }
        scalar => scalar.to_string(),
    }
}

/// One answer being parsed.
#[derive(Debug)]
pub struct ToolCallStream {
    parser: Box<dyn ToolCallParser>,
    calls: Calls,
    /// Arrived and not read yet.
    buffer: String,
    searched: usize,
}

impl ToolCallStream {
    /// For an answer to a request with `tools`.
    pub fn new(entry: &ToolCallEntry, tools: Arc<Tools>) -> Self {
        Self {
            parser: (entry.new)(),
            calls: Calls::new(tools, entry.forwards_unknown),
            buffer: String::new(),
            searched: 0,
        }
    }

    /// The next piece of the text.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        self.buffer.push_str(text);
        self.read(false);
        self.calls.take()
    }

    /// The end of the text.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        self.read(true);
        let rest = std::mem::take(&mut self.buffer);
        self.calls.finish(&rest);
        self.calls.take()
    }

    fn read(&mut self, is_end: bool) {
        let mut at = 0;
        while at < self.buffer.len() {
            let mut rest = Rest::new(&self.buffer[at..], is_end, &mut self.searched);
            let Some(num_bytes) = self.parser.step(&mut rest, &mut self.calls) else {
                break;
            };
            self.calls.has_read(&self.buffer[at..at + num_bytes]);
            self.searched = 0;
            at += num_bytes;
        }
        self.buffer.drain(..at);
    }
}

/// A complete answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedCalls {
    /// The content.
    pub text: String,
    /// In the order of the text.
    pub calls: Vec<ToolCall>,
}

/// A complete call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Of the function.
    pub name: String,
    /// A JSON text.
    pub arguments: String,
}

impl ParsedCalls {
    /// Parses a whole text.
    pub fn of_text(entry: &ToolCallEntry, tools: Arc<Tools>, text: &str) -> Self {
        let mut stream = ToolCallStream::new(entry, tools);
        let mut events = stream.push(text);
        events.extend(stream.finish());
        events.into_iter().collect()
    }
}

impl FromIterator<ToolEvent> for ParsedCalls {
    fn from_iter<I: IntoIterator<Item = ToolEvent>>(events: I) -> Self {
        let mut parsed = Self::default();
        for event in events {
            match event {
                ToolEvent::Text(text) => parsed.text.push_str(&text),
                ToolEvent::Name(name) => {
                    parsed.calls.push(ToolCall { name, ..ToolCall::default() });
                }
                ToolEvent::Arguments(piece) => {
                    if let Some(call) = parsed.calls.last_mut() {
                        call.arguments.push_str(&piece);
                    }
                }
                ToolEvent::Broken(text) => {
                    parsed.calls.pop();
                    parsed.text.push_str(&text);
                }
                ToolEvent::End | ToolEvent::Unknown(_) => {}
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests;
