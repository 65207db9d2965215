//! Gemma 4: a notation of its own.
//!
//! `<|tool_call>call:name{key:<|"|>text<|"|>,other:[1,true]}<tool_call|>`. A
//! call is reported when it is complete.
//!
//! Upstream: `sglang/srt/function_call/gemma4_detector.py`.

use serde_json::{Map, Value};

use super::{Calls, ToolCallParser, dump, read_text};
use crate::text::Rest;

const OPEN: &str = "<|tool_call>";
const CLOSE: &str = "<tool_call|>";
const QUOTE: &str = "<|\"|>";

/// Deeper nesting is taken for nonsense.
const MAX_DEPTH: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gemma4 {
    is_in_call: bool,
}

impl ToolCallParser for Gemma4 {
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
        match parse_call(&rest.text[..at]) {
            Some((name, arguments)) => {
                calls.whole_call(name, &dump(&Value::Object(arguments)));
                calls.close();
            }
            None => calls.give_up(&rest.text[..at + CLOSE.len()]),
        }
        Some(at + CLOSE.len())
    }
}

/// `call:name{...}`.
fn parse_call(text: &str) -> Option<(&str, Map<String, Value>)> {
    let (name, rest) = text.trim().strip_prefix("call:")?.split_once('{')?;
    let mut reader = Reader { rest, depth: 0 };
    let arguments = reader.object()?;
    let name = name.trim();
    (!name.is_empty() && reader.rest.trim().is_empty()).then_some((name, arguments))
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn eat(&mut self, marker: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(marker);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Up to one of `ends`, which stays.
    fn until(&mut self, ends: &[char]) -> Option<&'a str> {
        let at = self.rest.find(ends)?;
        let (part, rest) = self.rest.split_at(at);
        self.rest = rest;
        Some(part)
    }

    /// After the opening brace.
    fn object(&mut self) -> Option<Map<String, Value>> {
        self.enter()?;
        let mut object = Map::new();
        while !self.eat("}") {
            if self.eat(",") {
                continue;
            }
            let key = match self.eat(QUOTE) {
                true => self.quoted()?,
                false => self.until(&[':'])?.trim().to_owned(),
            };
            if !self.eat(":") {
                return None;
            }
            object.insert(key, self.value()?);
        }
        self.depth -= 1;
        Some(object)
    }

    fn array(&mut self) -> Option<Vec<Value>> {
        self.enter()?;
        let mut items = Vec::new();
        while !self.eat("]") {
            if self.eat(",") {
                continue;
            }
            // No value, and nothing that could be read over.
            if self.rest.starts_with('}') {
                return None;
            }
            items.push(self.value()?);
        }
        self.depth -= 1;
        Some(items)
    }

    fn enter(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn quoted(&mut self) -> Option<String> {
        let (text, rest) = self.rest.split_once(QUOTE)?;
        self.rest = rest;
        Some(text.to_owned())
    }

    fn value(&mut self) -> Option<Value> {
        if self.eat(QUOTE) {
            self.quoted().map(Value::String)
        } else if self.eat("{") {
            self.object().map(Value::Object)
        } else if self.eat("[") {
            self.array().map(Value::Array)
        } else {
            let word = self.until(&[',', '}', ']'])?.trim();
            let parsed = serde_json::from_str::<Value>(word).ok();
            let is_bare = |value: &Value| value.is_boolean() || value.is_number();
            Some(parsed.filter(is_bare).unwrap_or_else(|| Value::from(word)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_notation_says_what_json_says() {
        let text =
            "call:f{a:<|\"|>x, {y}<|\"|>, b:{c:[1,-2.5,<|\"|>]<|\"|>,{}], d:true},e:word,f:}";
        let (name, arguments) = parse_call(text).unwrap();
        let value = json!({"a": "x, {y}", "b": {"c": [1, -2.5, "]", {}], "d": true}, "e": "word",
                           "f": ""});
        assert_eq!((name, Value::Object(arguments)), ("f", value));
        assert_eq!(parse_call("call:f{}").unwrap().1.len(), 0);
        for text in
            ["f{}", "call:{}", "call:f", "call:f{a}", "call:f{a:1", "call:f{} x", "call:f{a:[1}]}"]
        {
            assert_eq!(parse_call(text), None, "{text}");
        }
        assert_eq!(parse_call(&format!("call:f{{a:{}", "[".repeat(9_000))), None);
    }
}
