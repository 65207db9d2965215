//! A call as a JSON object: `{"name": ..., "arguments": {...}}`, the keys in
//! any order, `parameters` as another word for `arguments`.
//!
//! Arguments are an object: `null` and an empty string mean there are none, a
//! string may hold the object, and with any other value it is no call.

use std::mem;

use serde_json::Value;

use super::Calls;
use crate::text::{JsonStep, JsonValue};

/// Reads one object and reports the call while it arrives.
#[derive(Debug, Default)]
pub(super) struct CallObject {
    place: Place,
    json: JsonValue,
    /// The JSON text of the current key, or of a value that is looked at when it is whole.
    word: String,
    has_name: bool,
    has_arguments: bool,
    /// Arguments that came before the name.
    held: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Open,
    KeyOrEnd,
    Key,
    InKey,
    Colon,
    Value(Role),
    CommaOrEnd,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Name,
    /// Arguments, of which nothing has arrived.
    Arguments,
    /// Arguments as they should be: they are passed on as they arrive.
    Object,
    /// A string or a word in the place of arguments.
    StandIn,
    Other,
}

/// How far a piece of text got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// All of it is part of the value, which goes on.
    More,
    /// The value ends after so many bytes.
    Done(usize),
    /// After so many bytes it is clear that this is no such value.
    Broken(usize),
}

impl CallObject {
    /// Reads what it can of `text`.
    pub(super) fn feed(&mut self, text: &str, calls: &mut Calls) -> Fed {
        for (at, c) in text.char_indices() {
            match self.push(c, calls) {
                JsonStep::More => {}
                JsonStep::Done => return Fed::Done(at + c.len_utf8()),
                JsonStep::DoneBefore | JsonStep::Broken => return Fed::Broken(at),
            }
        }
        Fed::More
    }

    fn push(&mut self, c: char, calls: &mut Calls) -> JsonStep {
        match self.place {
            Place::InKey => return self.push_key(c),
            Place::Value(role) if role != Role::Arguments => {
                return self.push_value(role, c, calls);
            }
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => {}
            Place::Value(_) => {
                let role = match c {
                    '{' => Role::Object,
                    '"' | 'n' => Role::StandIn,
                    _ => return JsonStep::Broken,
                };
                self.place = Place::Value(role);
                return self.push_value(role, c, calls);
            }
            Place::Open if c == '{' => self.place = Place::KeyOrEnd,
            Place::KeyOrEnd | Place::Key if c == '"' => {
                self.place = Place::InKey;
                return self.push_key(c);
            }
            Place::Colon if c == ':' => self.place = Place::Value(self.role()),
            Place::CommaOrEnd if c == ',' => self.place = Place::Key,
            Place::KeyOrEnd | Place::CommaOrEnd if c == '}' => return self.end(calls),
            _ => return JsonStep::Broken,
        }
        JsonStep::More
    }

    fn push_key(&mut self, c: char) -> JsonStep {
        match self.json.push(c, &mut self.word) {
            JsonStep::Done => {
                self.json = JsonValue::default();
                self.place = Place::Colon;
                JsonStep::More
            }
            step => step,
        }
    }

    fn role(&mut self) -> Role {
        match mem::take(&mut self.word).as_str() {
            "\"name\"" if !self.has_name => Role::Name,
            "\"arguments\"" | "\"parameters\"" if !self.has_arguments => Role::Arguments,
            _ => Role::Other,
        }
    }

    fn push_value(&mut self, role: Role, c: char, calls: &mut Calls) -> JsonStep {
        let mut piece = String::new();
        let step = self.json.push(c, &mut piece);
        match role {
            Role::Name | Role::StandIn => self.word.push_str(&piece),
            Role::Object => self.arguments(&piece, calls),
            Role::Arguments | Role::Other => {}
        }
        match step {
            JsonStep::More | JsonStep::Broken => return step,
            JsonStep::Done | JsonStep::DoneBefore => {}
        }
        self.json = JsonValue::default();
        self.place = Place::CommaOrEnd;
        self.has_arguments |= role == Role::Object;
        let is_good = match role {
            Role::Name => self.begin_call(calls),
            Role::StandIn => self.stand_in(calls),
            _ => true,
        };
        match step {
            _ if !is_good => JsonStep::Broken,
            JsonStep::DoneBefore => self.push(c, calls),
            _ => JsonStep::More,
        }
    }

    fn arguments(&mut self, piece: &str, calls: &mut Calls) {
        match self.has_name {
            true => calls.arguments(piece),
            false => self.held.push_str(piece),
        }
    }

    /// Reads what is in the place of arguments; false if it cannot be that.
    fn stand_in(&mut self, calls: &mut Calls) -> bool {
        match serde_json::from_str(&mem::take(&mut self.word)) {
            Ok(Value::Null) => true,
            Ok(Value::String(text)) if text.trim().is_empty() => true,
            Ok(Value::String(text)) => {
                let Some(object) = object_in(&text) else { return false };
                self.arguments(&object, calls);
                self.has_arguments = true;
                true
            }
            _ => false,
        }
    }

    fn begin_call(&mut self, calls: &mut Calls) -> bool {
        let word = mem::take(&mut self.word);
        let name = serde_json::from_str::<String>(&word).ok().filter(|name| !name.is_empty());
        let Some(name) = name else { return false };
        self.has_name = true;
        calls.call(&name);
        calls.arguments(&mem::take(&mut self.held));
        true
    }

    /// An object without a name is no call.
    fn end(&mut self, calls: &mut Calls) -> JsonStep {
        if !self.has_name {
            return JsonStep::Broken;
        }
        if !self.has_arguments {
            calls.arguments("{}");
        }
        calls.end_call();
        JsonStep::Done
    }
}

/// Whether a call may have this in the place of its arguments.
pub(super) fn can_be_arguments(value: &Value) -> bool {
    match value {
        Value::Null | Value::Object(_) => true,
        Value::String(text) => text.trim().is_empty() || object_in(text).is_some(),
        _ => false,
    }
}

/// `text` as [`JsonValue`] passes it on, if it is one object.
fn object_in(text: &str) -> Option<String> {
    let text = text.trim();
    let (mut json, mut out) = (JsonValue::default(), String::new());
    let last = text.char_indices().find_map(|(at, c)| match json.push(c, &mut out) {
        JsonStep::More => None,
        step => Some((at + c.len_utf8(), step)),
    });
    (text.starts_with('{') && last == Some((text.len(), JsonStep::Done))).then_some(out)
}

/// Reads the arguments of a call, which must be an object, as they arrive.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    json: JsonValue,
    has_begun: bool,
}

impl Arguments {
    /// Reads what it can of `text`.
    pub(super) fn feed(&mut self, text: &str, calls: &mut Calls) -> Fed {
        let mut piece = String::new();
        for (at, c) in text.char_indices() {
            if !self.has_begun && !c.is_ascii_whitespace() {
                self.has_begun = true;
                if c != '{' {
                    return Fed::Broken(at);
                }
            }
            match self.json.push(c, &mut piece) {
                JsonStep::More => {}
                JsonStep::Done => {
                    calls.arguments(&piece);
                    return Fed::Done(at + c.len_utf8());
                }
                JsonStep::DoneBefore | JsonStep::Broken => return Fed::Broken(at),
            }
        }
        calls.arguments(&piece);
        Fed::More
    }
}
