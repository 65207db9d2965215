//! Python's literals and lists of calls with keyword arguments, as values.

use serde_json::{Map, Number, Value};

/// `name(key=value, ...)`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: Map<String, Value>,
}

/// Deeper nesting is taken for nonsense.
const MAX_DEPTH: usize = 64;

/// `[a(x=1), b()]`, or one call without brackets. `None` if it is not that.
pub(crate) fn parse_calls(text: &str) -> Option<Vec<Call>> {
    let mut reader = Reader { rest: text, depth: 0 };
    let calls = match reader.eat('[') {
        true => reader.list(']', Reader::call)?,
        false => vec![reader.call()?],
    };
    reader.skip_blank();
    (reader.rest.is_empty() && !calls.is_empty()).then_some(calls)
}

/// A literal as `ast.literal_eval` takes it, as far as JSON can say it.
pub(crate) fn parse_literal(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text, depth: 0 };
    let value = reader.value()?;
    reader.skip_blank();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn skip_blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Takes `c`, after white space.
    fn eat(&mut self, c: char) -> bool {
        self.skip_blank();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Items up to `close`, with commas between; one may follow the last.
    fn list<T>(&mut self, close: char, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut items = Vec::new();
        while !self.eat(close) {
            if !items.is_empty() && !self.eat(',') {
                return None;
            }
            if !items.is_empty() && self.eat(close) {
                break;
            }
            items.push(item(self)?);
        }
        self.depth -= 1;
        Some(items)
    }

    fn call(&mut self) -> Option<Call> {
        let name = self.name(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))?;
        if !self.eat('(') {
            return None;
        }
        let arguments = self.list(')', |reader| {
            let key = reader.name(|c| c.is_alphanumeric() || c == '_')?;
            if !reader.eat('=') {
                return None;
            }
            Some((key, reader.value()?))
        })?;
        Some(Call { name, arguments: arguments.into_iter().collect() })
    }

    fn name(&mut self, is_part: impl Fn(char) -> bool) -> Option<String> {
        self.skip_blank();
        let len = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(len);
        let begins_well = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        self.rest = rest;
        begins_well.then(|| name.to_owned())
    }

    fn value(&mut self) -> Option<Value> {
        self.skip_blank();
        match self.peek()? {
            '[' => {
                self.next();
                self.list(']', Self::value).map(Value::Array)
            }
            '(' => {
                self.next();
                self.list(')', Self::value).map(Value::Array)
            }
            '{' => {
                self.next();
                let pairs = self.list('}', Self::pair)?;
                Some(Value::Object(pairs.into_iter().collect()))
            }
            '-' | '+' | '.' | '0'..='9' => self.number(),
            _ => self.text_or_word(),
        }
    }

    fn pair(&mut self) -> Option<(String, Value)> {
        let key = match self.value()? {
            Value::String(key) => key,
            Value::Number(key) => key.to_string(),
            _ => return None,
        };
        if !self.eat(':') {
            return None;
        }
        Some((key, self.value()?))
    }

    fn number(&mut self) -> Option<Value> {
        let is_negative = self.rest.starts_with('-');
        self.rest = self.rest.trim_start_matches(['-', '+']);
        let exponent = |before: Option<char>| matches!(before, Some('e' | 'E'));
        let mut before = None;
        let len = self.rest.find(|c: char| {
            let is_part = c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_')
                || (matches!(c, '+' | '-') && exponent(before));
            before = Some(c);
            !is_part
        });
        let (word, rest) = self.rest.split_at(len.unwrap_or(self.rest.len()));
        self.rest = rest;
        let digits = word.replace('_', "");
        let radix = match digits.get(..2) {
            Some("0x" | "0X") => Some(16),
            Some("0o" | "0O") => Some(8),
            Some("0b" | "0B") => Some(2),
            _ => None,
        };
        let sign = if is_negative { -1 } else { 1 };
        if let Some(radix) = radix {
            return Some((sign * i64::from_str_radix(&digits[2..], radix).ok()?).into());
        }
        if let Ok(whole) = digits.parse::<i64>() {
            return Some((sign * whole).into());
        }
        let number =
            digits.parse::<f64>().ok().filter(|_| !digits.starts_with(char::is_alphabetic));
        Number::from_f64(number? * sign as f64).map(Value::Number)
    }

    fn text_or_word(&mut self) -> Option<Value> {
        let word_len = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (word, rest) = self.rest.split_at(word_len.unwrap_or(self.rest.len()));
        if rest.starts_with(['\'', '"']) {
            let (is_raw, is_text) = match word {
                "" | "u" | "U" => (false, true),
                "r" | "R" => (true, true),
                _ => (false, false),
            };
            self.rest = rest;
            return if is_text { self.texts(is_raw) } else { None };
        }
        self.rest = rest;
        match word {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            _ => None,
        }
    }

    /// Literals that follow each other are one.
    fn texts(&mut self, is_raw: bool) -> Option<Value> {
        let mut text = String::new();
        loop {
            self.text(is_raw, &mut text)?;
            let after = self.rest.trim_start();
            if !after.starts_with(['\'', '"']) {
                return Some(Value::String(text));
            }
            self.rest = after;
        }
    }

    fn text(&mut self, is_raw: bool, out: &mut String) -> Option<()> {
        let quote = self.next()?;
        let triple: String = [quote; 3].iter().collect();
        let is_triple = self.rest.starts_with(&triple[1..]);
        if is_triple {
            self.rest = &self.rest[2..];
        }
        loop {
            if is_triple && let Some(rest) = self.rest.strip_prefix(&triple) {
                self.rest = rest;
                return Some(());
            }
            match self.next()? {
                '\\' if is_raw => {
                    out.push('\\');
                    out.push(self.next()?);
                }
                '\\' => self.escape(out)?,
                c if c == quote && !is_triple => return Some(()),
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Option<()> {
        let c = self.next()?;
        let plain = match c {
            '\n' => return Some(()),
            '\\' | '\'' | '"' => c,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            '0'..='7' => self.octal(c)?,
            other => {
                out.push('\\');
                other
            }
        };
        out.push(plain);
        Some(())
    }

    /// Up to three octal digits.
    fn octal(&mut self, first: char) -> Option<char> {
        let mut code = first.to_digit(8)?;
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
            self.next();
            code = code * 8 + digit;
        }
        char::from_u32(code)
    }

    /// So many hexadecimal digits.
    fn code(&mut self, num_digits: usize) -> Option<char> {
        let digits = self.rest.get(..num_digits).filter(|digits| !digits.starts_with('+'))?;
        self.rest = &self.rest[num_digits..];
        char::from_u32(u32::from_str_radix(digits, 16).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_are_values() {
        for (text, value) in [
            ("'it\\'s'", json!("it's")),
            (r#""a" 'b'"#, json!("ab")),
            (r"'\x41\u00e9\101\q\n'", json!("AéA\\q\n")),
            (r"r'\d'", json!("\\d")),
            ("'''two\n\"lines'''", json!("two\n\"lines")),
            ("''", json!("")),
            ("-5", json!(-5)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("-1.5e+3", json!(-1500.0)),
            ("(1, 'a',)", json!([1, "a"])),
            (" {'k': [True, None], 2: {}} ", json!({"k": [true, null], "2": {}})),
        ] {
            assert_eq!(parse_literal(text), Some(value), "{text}");
        }
        for text in ["", "'a", "[1 2]", "f(1)", "b'x'", "1x", "{1}", "inf", "1e999", "'\\u12'"] {
            assert_eq!(parse_literal(text), None, "{text}");
        }
        assert_eq!(parse_literal(&"[".repeat(9_000)), None);
    }

    #[test]
    fn calls_have_keyword_arguments_only() {
        let calls = parse_calls("[ a.b(x=1, y='[)'), c() ]").unwrap();
        assert_eq!((calls[0].name.as_str(), calls[1].name.as_str()), ("a.b", "c"));
        assert_eq!(Value::Object(calls[0].arguments.clone()), json!({"x": 1, "y": "[)"}));
        assert_eq!(parse_calls("f(a=1)").unwrap().len(), 1);
        for text in ["[]", "[f(1)]", "[f]", "[f(a=b)]", "[f(a=1) g()]", "[f(a=1)", "[f(a=1)] x"] {
            assert_eq!(parse_calls(text), None, "{text}");
        }
    }
}
