//! One JSON value, character by character.

/// What a character did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonStep {
    /// It belongs to the value, which goes on.
    More,
    /// It ends the value.
    Done,
    /// The value ended before it.
    DoneBefore,
    /// This is no JSON.
    Broken,
}

/// Checks a value as it arrives and passes it on, with white space as Python's
/// `json.dumps` writes it: upstream reads and writes arguments with that.
#[derive(Debug, Default)]
pub(crate) struct JsonValue {
    state: State,
    /// The open brackets.
    stack: Vec<char>,
    /// A number or a bare word, until its end is known.
    word: String,
    /// A high surrogate has come; its other half must come next.
    is_half: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Value,
    /// A first item or the end of the list.
    ItemOrEnd,
    /// A first key or the end of the object.
    KeyOrEnd,
    Key,
    Colon,
    Text {
        is_key: bool,
        escape: Escape,
    },
    Word,
    /// A comma or the end of what is open.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Escape {
    No,
    Backslash,
    /// So many hexadecimal digits are missing of the code unit.
    Hex {
        missing: u8,
        unit: u32,
    },
}

/// Deeper nesting is taken for nonsense, as serde_json does.
const MAX_DEPTH: usize = 127;

/// No number has more digits than this.
const MAX_WORD: usize = 512;

impl JsonValue {
    /// Takes the next character; what is to be passed on goes to `out`.
    pub(crate) fn push(&mut self, c: char, out: &mut String) -> JsonStep {
        match self.state {
            State::Text { is_key, escape } => self.push_text(c, is_key, escape, out),
            State::Word => self.push_word(c, out),
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => JsonStep::More,
            State::Value => self.begin(c, out),
            State::ItemOrEnd if c == ']' => self.close(c, out),
            State::ItemOrEnd => self.begin(c, out),
            State::KeyOrEnd if c == '}' => self.close(c, out),
            State::KeyOrEnd | State::Key if c == '"' => {
                out.push(c);
                self.go(State::Text { is_key: true, escape: Escape::No })
            }
            State::Colon if c == ':' => {
                out.push_str(": ");
                self.go(State::Value)
            }
            State::After if c == ',' => {
                out.push_str(", ");
                let is_object = self.stack.last() == Some(&'{');
                self.go(if is_object { State::Key } else { State::Value })
            }
            State::After => self.close(c, out),
            State::KeyOrEnd | State::Key | State::Colon => JsonStep::Broken,
        }
    }

    fn go(&mut self, state: State) -> JsonStep {
        self.state = state;
        JsonStep::More
    }

    fn begin(&mut self, c: char, out: &mut String) -> JsonStep {
        match c {
            '{' | '[' if self.stack.len() < MAX_DEPTH => {
                self.stack.push(c);
                out.push(c);
                self.go(if c == '{' { State::KeyOrEnd } else { State::ItemOrEnd })
            }
            '"' => {
                out.push(c);
                self.go(State::Text { is_key: false, escape: Escape::No })
            }
            '-' | '0'..='9' | 'a'..='z' => {
                self.word.push(c);
                self.go(State::Word)
            }
            _ => JsonStep::Broken,
        }
    }

    fn close(&mut self, c: char, out: &mut String) -> JsonStep {
        match (self.stack.pop(), c) {
            (Some('{'), '}') | (Some('['), ']') => {
                out.push(c);
                self.end_value()
            }
            _ => JsonStep::Broken,
        }
    }

    fn end_value(&mut self) -> JsonStep {
        self.state = State::After;
        if self.stack.is_empty() { JsonStep::Done } else { JsonStep::More }
    }

    fn push_text(&mut self, c: char, is_key: bool, escape: Escape, out: &mut String) -> JsonStep {
        let escape = match (escape, c) {
            (Escape::No, c) if self.is_half && c != '\\' => return JsonStep::Broken,
            (Escape::Backslash, c) if self.is_half && c != 'u' => return JsonStep::Broken,
            (Escape::No, '"') => {
                out.push(c);
                return if is_key { self.go(State::Colon) } else { self.end_value() };
            }
            (Escape::No, '\\') => Escape::Backslash,
            (Escape::No, '\0'..='\x1f') => return JsonStep::Broken,
            (Escape::No, _) => Escape::No,
            (Escape::Backslash, 'u') => Escape::Hex { missing: 4, unit: 0 },
            (Escape::Backslash, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => Escape::No,
            (Escape::Backslash, _) => return JsonStep::Broken,
            (Escape::Hex { missing, unit }, _) => {
                let Some(digit) = c.to_digit(16) else { return JsonStep::Broken };
                match (missing, unit * 16 + digit) {
                    (1, unit) if !self.is_pairing(unit) => return JsonStep::Broken,
                    (1, _) => Escape::No,
                    (_, unit) => Escape::Hex { missing: missing - 1, unit },
                }
            }
        };
        out.push(c);
        self.go(State::Text { is_key, escape })
    }

    /// Whether a code unit may come here; halves of pairs do not stand alone.
    fn is_pairing(&mut self, unit: u32) -> bool {
        let is_low = matches!(unit, 0xdc00..=0xdfff);
        let was_half = std::mem::replace(&mut self.is_half, matches!(unit, 0xd800..=0xdbff));
        was_half == is_low
    }

    fn push_word(&mut self, c: char, out: &mut String) -> JsonStep {
        if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') {
            self.word.push(c);
            return if self.word.len() <= MAX_WORD { JsonStep::More } else { JsonStep::Broken };
        }
        let is_number = || serde_json::from_str::<serde_json::Number>(&self.word).is_ok();
        if !matches!(self.word.as_str(), "true" | "false" | "null") && !is_number() {
            return JsonStep::Broken;
        }
        out.push_str(&self.word);
        self.word.clear();
        match self.end_value() {
            JsonStep::Done => JsonStep::DoneBefore,
            _ => self.push(c, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out, and how many bytes were read; `None` if it is broken
    /// or has no end.
    fn read(text: &str) -> Option<(String, usize)> {
        let (mut value, mut out) = (JsonValue::default(), String::new());
        for (at, c) in text.char_indices() {
            match value.push(c, &mut out) {
                JsonStep::More => {}
                JsonStep::Done => return Some((out, at + c.len_utf8())),
                JsonStep::DoneBefore => return Some((out, at)),
                JsonStep::Broken => return None,
            }
        }
        None
    }

    #[test]
    fn white_space_is_pythons() {
        let text = "{ \"a\" :\n[1,2 , {}],\"b\\\"{\":\"x  y\\u00e9\", \"c\": {\"d\": -1.5e3}} rest";
        let dumped = r#"{"a": [1, 2, {}], "b\"{": "x  y\u00e9", "c": {"d": -1.5e3}}"#;
        assert_eq!(read(text), Some((dumped.to_owned(), text.len() - 5)));
        assert_eq!(read("12,"), Some(("12".to_owned(), 2)));
        assert_eq!(read(" [] "), Some(("[]".to_owned(), 3)));
        let pairs = r#""\ud83d\uDE00\u20ac""#;
        assert_eq!(read(pairs), Some((pairs.to_owned(), pairs.len())));
    }

    #[test]
    fn what_serde_refuses_is_refused() {
        for text in [
            "{,}",
            "{a: 1}",
            "{\"a\" 1}",
            "{\"a\":}",
            "[1,]",
            "[1 2]",
            "{\"a\": 1,}",
            "[}",
            "]",
            "'a'",
            "[nul]",
            "[01]",
            "[1.]",
            "[+1]",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u00g0\"",
            "\"\\ud83d\"",
            "\"\\ud83d.\"",
            "\"\\ud83d\\n\"",
            "\"\\ud83d\\ud83d\"",
            "\"\\ude00\"",
            "[NaN]",
            "[--1]",
            "}",
            ":",
        ] {
            assert_eq!(read(text), None, "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(read(&nested(128)), None);
        assert!(serde_json::from_str::<serde_json::Value>(&nested(128)).is_err());
        assert_eq!(read(&nested(127)).unwrap().0, nested(127));
        assert_eq!(read(&"1".repeat(600)), None);
    }
}
