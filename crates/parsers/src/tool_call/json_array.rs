//! An answer that is a list of calls and nothing else, as a grammar makes it when the
//! answer must call: `[{"name": ..., "parameters": {...}}, ...]`.
//!
//! Upstream: `sglang/srt/function_call/json_array_parser.py`.

use super::{
    Calls, ToolCallParser,
    object::{CallObject, Fed},
};
use crate::text::Rest;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct JsonArray {
    place: Place,
    object: CallObject,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Start,
    Open,
    Object,
    CommaOrEnd,
    /// After the list, or where there is none.
    Text,
}

impl JsonArray {
    fn give_up(&mut self, read: &str, calls: &mut Calls) -> Option<usize> {
        calls.give_up(read);
        self.place = Place::Text;
        Some(read.len())
    }
}

impl ToolCallParser for JsonArray {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        if !matches!(self.place, Place::Object | Place::Text) && rest.blank() > 0 {
            return Some(rest.blank());
        }
        match self.place {
            Place::Start if rest.text.starts_with('[') => {
                calls.open();
                self.place = Place::Open;
                Some(1)
            }
            Place::Start => {
                self.place = Place::Text;
                Some(0)
            }
            Place::Open if rest.text.starts_with('{') => {
                self.object = CallObject::default();
                self.place = Place::Object;
                Some(0)
            }
            Place::Object => match self.object.feed(rest.text, calls) {
                Fed::More => Some(rest.text.len()),
                Fed::Broken(len) => self.give_up(&rest.text[..len], calls),
                Fed::Done(len) => {
                    self.place = Place::CommaOrEnd;
                    Some(len)
                }
            },
            Place::CommaOrEnd if rest.text.starts_with(',') => {
                self.place = Place::Open;
                Some(1)
            }
            Place::CommaOrEnd if rest.text.starts_with(']') => {
                calls.close();
                self.place = Place::Text;
                Some(1)
            }
            Place::Open | Place::CommaOrEnd => self.give_up("", calls),
            Place::Text => {
                calls.text(rest.text);
                Some(rest.text.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::tool_call::{JSON_ARRAY, ParsedCalls, ToolCallStream, Tools};

    fn tools() -> Arc<Tools> {
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        Arc::new(Tools::new(&[tool("f"), tool("g")]).unwrap())
    }

    fn parse(text: &str) -> ParsedCalls {
        let whole = ParsedCalls::of_text(&JSON_ARRAY, tools(), text);
        let mut stream = ToolCallStream::new(&JSON_ARRAY, tools());
        let mut events: Vec<_> =
            text.chars().flat_map(|c| stream.push(c.encode_utf8(&mut [0; 4]))).collect();
        events.extend(stream.finish());
        assert_eq!(events.into_iter().collect::<ParsedCalls>(), whole, "{text}");
        whole
    }

    #[test]
    fn each_object_is_a_call() {
        let text = r#" [ {"name": "f", "parameters": {"a": "]"}} ,{"name":"g","parameters":{}}]"#;
        let parsed = parse(text);
        let calls: Vec<_> =
            parsed.calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
        assert_eq!(calls, [("f", r#"{"a": "]"}"#), ("g", "{}")]);
        assert_eq!(parsed.text, "");
    }

    #[test]
    fn what_is_no_list_of_calls_is_text() {
        for text in ["no list", "[1]", r#"[{"name": "f", "parameters": {"a""#, "{}"] {
            let parsed = parse(text);
            assert_eq!((parsed.text.as_str(), parsed.calls.len()), (text, 0));
        }
    }
}
