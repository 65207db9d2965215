//! Lists of calls in Python's syntax: Llama 4, and LFM2 between tags.
//!
//! `[name(key="value", other=1), ...]`. LFM2's tags may also hold a list of
//! JSON objects. A list is reported when it is complete.
//!
//! Upstream: `sglang/srt/function_call/{pythonic,lfm2}_detector.py`. LFM2's has
//! repairs for Python that is none (quotes inside quotes); these come out as text.

use serde_json::Value;

use super::{
    Calls, ToolCallParser, dump,
    object::{CallObject, Fed, can_be_arguments},
    read_text,
};
use crate::text::{Balance, Call, Rest, parse_calls};

/// Llama 4 puts these around lists; they are not content.
const NOISE: [&str; 2] = ["<|python_start|>", "<|python_end|>"];

/// Lists without tags.
#[derive(Debug, Default)]
pub(super) struct Pythonic {
    place: Place,
    balance: Balance,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Text,
    /// At a bracket that may begin a list of calls.
    Bracket,
    List,
}

impl ToolCallParser for Pythonic {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        match self.place {
            Place::Text => {
                let markers = [NOISE[0], NOISE[1], "["];
                Some(read_text(rest, &markers, calls)?.unwrap_or_else(|marker| match marker {
                    "[" => {
                        self.place = Place::Bracket;
                        0
                    }
                    noise => noise.len(),
                }))
            }
            Place::Bracket => {
                let begins = begins_call(&rest.text[1..]);
                if begins == Some(true) {
                    self.place = Place::List;
                    self.balance = Balance::default();
                    calls.open();
                    return Some(0);
                }
                if begins.is_none() && !rest.is_end {
                    return None;
                }
                self.place = Place::Text;
                calls.text("[");
                Some(1)
            }
            Place::List => {
                let end = self.balance.end(rest.text)?;
                self.place = Place::Text;
                let list = &rest.text[..end];
                match parse_calls(list) {
                    Some(found) => {
                        report(&found, calls);
                        calls.close();
                    }
                    None => calls.give_up(list),
                }
                Some(end)
            }
        }
    }
}

/// Whether a name and a parenthesis come next; `None` while that is open.
fn begins_call(text: &str) -> Option<bool> {
    let text = text.trim_start();
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    let after = text.trim_start_matches(is_part);
    let begins_well = |c: char| c.is_alphabetic() || c == '_';
    match (text.chars().next(), after.trim_start().chars().next()) {
        (Some(first), _) if !begins_well(first) => Some(false),
        (None, _) | (_, None) => None,
        (_, Some(next)) => Some(next == '('),
    }
}

fn report(found: &[Call], calls: &mut Calls) {
    for call in found {
        calls.whole_call(&call.name, &dump(&Value::Object(call.arguments.clone())));
    }
}

const OPEN: &str = "<|tool_call_start|>";
const CLOSE: &str = "<|tool_call_end|>";

/// Lists between tags.
#[derive(Debug, Default)]
pub(super) struct Lfm2 {
    is_in_call: bool,
}

impl ToolCallParser for Lfm2 {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        if !self.is_in_call {
            return Some(read_text(rest, &[OPEN], calls)?.unwrap_or_else(|marker| {
                calls.open();
                self.is_in_call = true;
                marker.len()
            }));
        }
        let at = rest.find(CLOSE)?;
        self.is_in_call = false;
        let list = rest.text[..at].trim();
        if let Some(found) = parse_calls(list) {
            report(&found, calls);
            calls.close();
        } else if let Some(objects) = json_calls(list) {
            for object in objects {
                // It is one: nothing is left to find out.
                let fed = CallObject::default().feed(&object.to_string(), calls);
                debug_assert!(matches!(fed, Fed::Done(_)));
            }
            calls.close();
        } else {
            calls.give_up(&rest.text[..at + CLOSE.len()]);
        }
        Some(at + CLOSE.len())
    }
}

/// A list of objects that are calls, or one of them.
fn json_calls(text: &str) -> Option<Vec<Value>> {
    let objects = match serde_json::from_str(text).ok()? {
        Value::Array(objects) => objects,
        object => vec![object],
    };
    let is_call = |object: &Value| {
        let has_name = object["name"].as_str().is_some_and(|name| !name.is_empty());
        let mut arguments = ["arguments", "parameters"].iter().filter_map(|&key| object.get(key));
        has_name && arguments.all(can_be_arguments)
    };
    (!objects.is_empty() && objects.iter().all(is_call)).then_some(objects)
}
