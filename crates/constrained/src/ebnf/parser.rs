//! Text to rules.

use std::{collections::HashMap, iter::Peekable, str::Chars};

use super::{Expr, Rules};

/// Groups inside of groups.
const MAX_DEPTH: usize = 200;
/// Times a part may be repeated, if there is a limit.
const MAX_REPEAT: u32 = 100_000;
/// Quantifiers of one part: each is a level of nesting, as a group is.
const MAX_QUANTIFIERS: usize = 4;

/// # Errors
/// What is wrong, and in which line.
pub(super) fn parse(text: &str) -> Result<Rules, String> {
    let mut parser =
        Parser { chars: text.chars().peekable(), line: 1, names: Vec::new(), ids: HashMap::new() };
    let mut bodies: HashMap<usize, Expr> = HashMap::new();
    parser.skip_blank();
    let mut next = parser.rule_head()?;
    while let Some(rule) = next {
        let line = parser.line;
        let (body, following) = parser.body()?;
        if bodies.insert(rule, body).is_some() {
            let name = &parser.names[rule];
            return Err(format!("line {line}: the rule `{name}` is there already"));
        }
        next = following;
    }
    let root =
        *parser.ids.get("root").filter(|id| bodies.contains_key(id)).ok_or("no rule `root`")?;
    let body = |(id, name): (usize, &String)| {
        bodies.remove(&id).ok_or_else(|| format!("no rule `{name}`"))
    };
    Ok(Rules { bodies: parser.names.iter().enumerate().map(body).collect::<Result<_, _>>()?, root })
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
    names: Vec<String>,
    ids: HashMap<String, usize>,
}

/// A part, or the head of the next rule, which looks like a part up to `::=`.
enum Item {
    Part(Expr),
    Head(usize),
}

impl Parser<'_> {
    fn error<T>(&self, message: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("line {}: {message}", self.line))
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn take_if(&mut self, wanted: char) -> bool {
        self.chars.next_if_eq(&wanted).is_some()
    }

    /// White space and comments.
    fn skip_blank(&mut self) {
        while let Some(&c) = self.chars.peek() {
            if c == '#' {
                while self.chars.peek().is_some_and(|&c| c != '\n') {
                    self.next();
                }
            } else if c.is_whitespace() {
                self.next();
            } else {
                break;
            }
        }
    }

    fn id(&mut self, name: String) -> usize {
        let names = &mut self.names;
        *self.ids.entry(name).or_insert_with_key(|name| {
            names.push(name.clone());
            names.len() - 1
        })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) =
            self.chars.next_if(|&c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
        {
            name.push(c);
        }
        name
    }

    fn takes_assignment(&mut self) -> bool {
        let mut ahead = self.chars.clone();
        let is_there = ahead.by_ref().take(3).eq("::=".chars());
        if is_there {
            self.chars = ahead;
        }
        is_there
    }

    /// The name before `::=`; `None` at the end of the text.
    fn rule_head(&mut self) -> Result<Option<usize>, String> {
        let Some(&c) = self.chars.peek() else { return Ok(None) };
        let name = self.name();
        self.skip_blank();
        if name.is_empty() || !self.takes_assignment() {
            return self.error(format_args!("a rule is expected, not `{c}`"));
        }
        Ok(Some(self.id(name)))
    }

    /// Up to the end of the text or the head of the next rule.
    fn body(&mut self) -> Result<(Expr, Option<usize>), String> {
        let (body, head) = self.choice(0)?;
        match self.chars.peek() {
            Some(&c) if head.is_none() => self.error(format_args!("`{c}` is unexpected")),
            _ => Ok((body, head)),
        }
    }

    fn choice(&mut self, depth: usize) -> Result<(Expr, Option<usize>), String> {
        if depth > MAX_DEPTH {
            return self.error("too deeply nested");
        }
        let mut choices = Vec::new();
        loop {
            let mut parts = Vec::new();
            let mut head = None;
            loop {
                self.skip_blank();
                match self.item(depth)? {
                    Some(Item::Part(part)) => parts.push(part),
                    Some(Item::Head(rule)) => {
                        head = Some(rule);
                        break;
                    }
                    None => break,
                }
            }
            choices.push(one_or(parts, Expr::Sequence));
            if head.is_some() || !self.take_if('|') {
                return Ok((one_or(choices, Expr::Choice), head));
            }
        }
    }

    /// `None` where a sequence ends.
    fn item(&mut self, depth: usize) -> Result<Option<Item>, String> {
        let Some(&c) = self.chars.peek() else { return Ok(None) };
        let part = match c {
            '|' | ')' => return Ok(None),
            '"' | '\'' => Expr::Literal(self.string()?),
            '[' => self.class()?,
            '(' => self.group(depth)?,
            c if c.is_alphabetic() || c == '_' => {
                let name = self.name();
                if self.chars.peek() == Some(&'(') {
                    return self.error(format_args!("`{name}(...)` is not supported"));
                }
                // Which of the two it is shows after white space.
                let here = (self.chars.clone(), self.line);
                self.skip_blank();
                if depth == 0 && self.takes_assignment() {
                    return Ok(Some(Item::Head(self.id(name))));
                }
                (self.chars, self.line) = here;
                Expr::Rule(self.id(name))
            }
            c => return self.error(format_args!("`{c}` is unexpected")),
        };
        self.repeated(part).map(|part| Some(Item::Part(part)))
    }

    fn group(&mut self, depth: usize) -> Result<Expr, String> {
        self.next();
        if self.chars.peek() == Some(&'=') {
            return self.error("lookahead `(=` is not supported");
        }
        let (inner, _) = self.choice(depth + 1)?;
        match self.take_if(')') {
            true => Ok(inner),
            false => self.error("`)` is expected"),
        }
    }

    /// With all the quantifiers that follow.
    fn repeated(&mut self, mut part: Expr) -> Result<Expr, String> {
        let mut num_quantifiers = 0;
        while let Some((min, max)) = self.quantifier()? {
            num_quantifiers += 1;
            if num_quantifiers > MAX_QUANTIFIERS {
                return self.error(format_args!(
                    "more than {MAX_QUANTIFIERS} quantifiers in a row are not supported"
                ));
            }
            part = match max {
                // Lark has no `{0}`.
                Some(0) => Expr::Literal(String::new()),
                max => Expr::Repeat { inner: Box::new(part), min, max },
            };
        }
        Ok(part)
    }

    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        let range = match self.chars.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.next();
                return self.range().map(Some);
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(range))
    }

    /// After `{`, up to and including `}`.
    fn range(&mut self) -> Result<(u32, Option<u32>), String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next_if(|&c| c != '}' && c != '\n') {
            text.push(c);
        }
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let bounds = match text.split_once(',') {
            None => number(&text).map(|count| (count, Some(count))),
            Some((min, max)) if max.trim().is_empty() => number(min).map(|min| (min, None)),
            Some((min, max)) => number(min).zip(number(max)).map(|(min, max)| (min, Some(max))),
        };
        let bounds = bounds.filter(|&(min, max)| max.is_none_or(|max| min <= max));
        let Some((min, max)) = bounds.filter(|_| self.take_if('}')) else {
            return self.error(format_args!("{{{text}}} is no range"));
        };
        let small = |count: u64| u32::try_from(count).ok().filter(|&count| count <= MAX_REPEAT);
        match (small(min), max.map(small)) {
            (Some(min), None) => Ok((min, None)),
            (Some(min), Some(Some(max))) => Ok((min, Some(max))),
            _ => self.error(format_args!("{{{text}}} is too much: {MAX_REPEAT} at most")),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = self.next();
        let mut text = String::new();
        loop {
            if matches!(self.chars.peek(), None | Some('\n')) {
                return self.error("a string without an end");
            }
            match self.next() {
                c if c == quote => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                c => text.extend(c),
            }
        }
    }

    fn class(&mut self) -> Result<Expr, String> {
        self.next();
        let is_negated = self.take_if('^');
        let mut ranges: Vec<(char, char)> = Vec::new();
        loop {
            let low = match self.class_char()? {
                Some(c) => c,
                None => return Ok(Expr::Class { ranges, is_negated }),
            };
            let mut ahead = self.chars.clone();
            let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']');
            let high = if is_range {
                self.next();
                self.class_char()?.unwrap_or(low)
            } else {
                low
            };
            if high < low {
                return self.error(format_args!("a range from `{low}` to `{high}`"));
            }
            ranges.push((low, high));
        }
    }

    /// `None` at the class's end.
    fn class_char(&mut self) -> Result<Option<char>, String> {
        match self.chars.peek() {
            None | Some('\n') => self.error("a class without an end"),
            Some(']') => {
                self.next();
                Ok(None)
            }
            Some('\\') => {
                self.next();
                self.escape().map(Some)
            }
            Some(_) => Ok(self.next()),
        }
    }

    /// After the backslash.
    fn escape(&mut self) -> Result<char, String> {
        let c = match self.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('0') => '\0',
            Some('x') => self.hex(2)?,
            Some('u') => self.hex(4)?,
            Some('U') => self.hex(8)?,
            Some(c) if !c.is_alphanumeric() => c,
            c => {
                let c = c.unwrap_or(' ');
                return self.error(format_args!("`\\{c}` is no escape"));
            }
        };
        Ok(c)
    }

    fn hex(&mut self, len: usize) -> Result<char, String> {
        let mut digits = String::new();
        while digits.len() < len
            && let Some(c) = self.chars.next_if(char::is_ascii_hexdigit)
        {
            digits.push(c);
        }
        let code = (digits.len() == len).then(|| u32::from_str_radix(&digits, 16).ok()).flatten();
        match code.and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => self.error(format_args!("`{digits}` is no character's number")),
        }
    }
}

fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => many(parts),
    }
}
