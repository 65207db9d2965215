//! A call as a JSON object: `{"name": ..., "arguments": {...}}`, the keys in
//! any order, `parameters` as another word for `arguments`.

use std::mem;

use super::Calls;
use crate::text::{JsonStep, JsonValue};

/// Reads one object and reports the call while it arrives.
#[derive(Debug, Default)]
pub(super) struct CallObject {
    place: Place,
    json: JsonValue,
    /// The JSON text of the current key, or of a name.
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
    Arguments,
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
            Place::Value(role) => return self.push_value(role, c, calls),
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => {}
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
            Role::Name => self.word.push_str(&piece),
            Role::Arguments if self.has_name => calls.arguments(&piece),
            Role::Arguments => self.held.push_str(&piece),
            Role::Other => {}
        }
        match step {
            JsonStep::More | JsonStep::Broken => return step,
            JsonStep::Done | JsonStep::DoneBefore => {}
        }
        self.json = JsonValue::default();
        self.place = Place::CommaOrEnd;
        self.has_arguments |= role == Role::Arguments;
        if role == Role::Name && !self.begin_call(calls) {
            return JsonStep::Broken;
        }
        if step == JsonStep::DoneBefore { self.push(c, calls) } else { JsonStep::More }
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
