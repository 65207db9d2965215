//! GLM 4.5 to 4.7: a name, then keys and values in tags.
//!
//! `<tool_call>name\n<arg_key>key</arg_key>\n<arg_value>value</arg_value>...
//! </tool_call>`; GLM 4.7 leaves the line breaks out.
//!
//! Upstream: `sglang/srt/function_call/glm4_moe_detector.py`, `glm47_moe_detector.py`.

use serde_json::Value;

use super::{Calls, ToolCallParser, dump, read_text, schema::json_first};
use crate::text::{Rest, Until};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const KEY: (&str, &str) = ("<arg_key>", "</arg_key>");
const VALUE: (&str, &str) = ("<arg_value>", "</arg_value>");

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Glm {
    place: Place,
    function: String,
    key: String,
    num_arguments: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Text,
    Name,
    /// Between arguments.
    Call,
    Key,
    BeforeValue,
    Value,
}

impl Glm {
    fn give_up(&mut self, calls: &mut Calls) -> Option<usize> {
        calls.give_up("");
        *self = Self::default();
        Some(0)
    }

    /// The name ends where the line ends or a tag begins.
    fn name(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let ends = ["\n", "\\n", KEY.0, CLOSE, OPEN];
        let Until::Marker { at, marker } = rest.until(&ends) else {
            return None;
        };
        self.function = rest.text[..at].trim().to_owned();
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
        if marker == OPEN || self.function.is_empty() || !self.function.chars().all(is_name) {
            return self.give_up(calls);
        }
        calls.call(&self.function);
        self.num_arguments = 0;
        self.place = Place::Call;
        Some(at)
    }

    fn call(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        match rest.until(&[KEY.0, CLOSE]) {
            Until::Marker { at, marker: CLOSE } => {
                calls.arguments(if self.num_arguments == 0 { "{}" } else { "}" });
                calls.end_call();
                calls.close();
                self.place = Place::Text;
                Some(at + CLOSE.len())
            }
            Until::Marker { at, marker } => {
                self.place = Place::Key;
                Some(at + marker.len())
            }
            Until::Safe(_) => None,
        }
    }

    fn key(&mut self, rest: &mut Rest<'_>) -> Option<usize> {
        let at = rest.find(KEY.1)?;
        self.key = rest.text[..at].trim().to_owned();
        self.place = Place::BeforeValue;
        Some(at + KEY.1.len())
    }

    fn before_value(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        match rest.until(&[VALUE.0, KEY.0, CLOSE]) {
            Until::Marker { at, marker } if marker == VALUE.0 => {
                self.place = Place::Value;
                Some(at + marker.len())
            }
            Until::Marker { .. } => self.give_up(calls),
            Until::Safe(_) => None,
        }
    }

    fn value(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let at = rest.find(VALUE.1)?;
        let schema = calls.tools().parameter(&self.function, &self.key);
        let value = json_first(&rest.text[..at], schema);
        let separator = if self.num_arguments == 0 { "{" } else { ", " };
        let key = Value::from(self.key.as_str());
        calls.arguments(&format!("{separator}{key}: {}", dump(&value)));
        self.num_arguments += 1;
        self.place = Place::Call;
        Some(at + VALUE.1.len())
    }
}

impl ToolCallParser for Glm {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        match self.place {
            Place::Text => Some(read_text(rest, &[OPEN], calls)?.unwrap_or_else(|marker| {
                calls.open();
                self.place = Place::Name;
                marker.len()
            })),
            Place::Name => self.name(rest, calls),
            Place::Call => self.call(rest, calls),
            Place::Key => self.key(rest),
            Place::BeforeValue => self.before_value(rest, calls),
            Place::Value => self.value(rest, calls),
        }
    }
}
