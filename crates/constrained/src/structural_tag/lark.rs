//! Structural tags as the Lark of llguidance.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{
    SpecialTokens, alike,
    parts::{Part, choice, sequence},
};
use crate::anchors::without_anchors;

/// Formats inside of formats.
const MAX_DEPTH: usize = 32;
/// Triggers of a format, and ends of a tag: each has a terminal that names all the others.
const MAX_MARKS: usize = 128;
/// Bytes of rules.
const MAX_RULES_BYTES: usize = 4 << 20;

/// Lark for the newer form of a structural tag. Where one of the `special` tokens is spelt
/// out, the token is meant. `json` adds to a schema how JSON is spaced.
///
/// # Errors
/// A format that is malformed, or not supported, by its name.
pub(crate) fn to_lark(
    tag: &Value,
    special: &SpecialTokens,
    json: &dyn Fn(&Value) -> Result<Value, String>,
) -> Result<String, String> {
    let mut writer = Writer { special, json, lines: String::new(), num_names: 0 };
    let format = tag.get("format").ok_or("a structural tag has structures or a format")?;
    let start = writer.format(format, &[], 0)?;
    let start = writer.expr(&start)?;
    writer.line("start", &start)?;
    Ok(writer.lines)
}

struct Writer<'a> {
    special: &'a SpecialTokens,
    json: &'a dyn Fn(&Value) -> Result<Value, String>,
    lines: String,
    num_names: usize,
}

impl Writer<'_> {
    fn line(&mut self, name: &str, body: &str) -> Result<(), String> {
        if self.lines.len() + name.len() + body.len() > MAX_RULES_BYTES {
            return Err(format!("its rules take more than {MAX_RULES_BYTES} bytes"));
        }
        let _ = writeln!(self.lines, "{name}: {body}");
        Ok(())
    }

    fn new_name(&mut self, prefix: &str) -> String {
        self.num_names += 1;
        format!("{prefix}{}", self.num_names)
    }

    /// What `format` describes, and one of `ends` after it if there are any. Free text goes up
    /// to the first place where one of them stands.
    fn format(&mut self, format: &Value, ends: &[&str], depth: usize) -> Result<Part, String> {
        if depth > MAX_DEPTH {
            return Err("formats are too deeply nested".to_owned());
        }
        let part = match text_of(format, "type")? {
            "any_text" => return self.text_until(ends, ends),
            "triggered_tags" => return self.triggered(format, ends, depth),
            "sequence" => return self.sequence(list_of(format, "elements")?, ends, depth),
            "or" => return self.any_of(list_of(format, "elements")?, ends, depth),
            "tag" => return self.tag(format, "", ends, depth),
            "const_string" => self.literal(text_of(format, "value")?),
            "json_schema" => {
                let schema = format.get("json_schema").unwrap_or(&Value::Bool(true));
                Part::Json(format!("%json {}", (self.json)(schema)?))
            }
            "regex" => {
                let pattern = without_anchors(text_of(format, "pattern")?);
                Part::Text(format!("/{}/", llguidance::regex_to_lark(pattern, "")))
            }
            "tags_with_separator" => self.separated(format, depth)?,
            other => return Err(format!("the format `{other}` is not supported")),
        };
        Ok(self.ended(part, ends))
    }

    fn ended(&self, part: Part, ends: &[&str]) -> Part {
        match ends.is_empty() {
            true => part,
            false => {
                let ends = ends.iter().map(|end| self.literal(end)).collect();
                sequence(vec![part, choice(ends)])
            }
        }
    }

    fn sequence(&mut self, list: &[Value], ends: &[&str], depth: usize) -> Result<Part, String> {
        let Some((last, before)) = list.split_last() else {
            return Ok(self.ended(sequence(Vec::new()), ends));
        };
        if let Some(part) = before.iter().find(|part| is_unlimited(part)) {
            return Err(format!("`{}` amid a sequence is not supported", text_of(part, "type")?));
        }
        let mut parts = Vec::new();
        for part in before {
            parts.push(self.format(part, &[], depth + 1)?);
        }
        parts.push(self.format(last, ends, depth + 1)?);
        Ok(sequence(parts))
    }

    fn any_of(&mut self, list: &[Value], ends: &[&str], depth: usize) -> Result<Part, String> {
        alike::check(list)?;
        let parts = list.iter().map(|part| self.format(part, ends, depth + 1));
        let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
        match parts.is_empty() {
            true => Err("`or` has no elements".to_owned()),
            false => Ok(choice(parts)),
        }
    }

    /// A tag without the first `trigger` of its beginning.
    fn tag(
        &mut self,
        tag: &Value,
        trigger: &str,
        ends: &[&str],
        depth: usize,
    ) -> Result<Part, String> {
        let begin = text_of(tag, "begin")?;
        let rest = begin.strip_prefix(trigger).ok_or("a tag begins with no trigger")?;
        let rest = self.literal(rest);
        let content = tag.get("content").ok_or("a tag has no content")?;
        let own = ends_of(tag)?;
        if own.iter().all(|end| end.is_empty()) {
            return Ok(sequence(vec![rest, self.format(content, ends, depth + 1)?]));
        }
        if own.contains(&"") && is_unlimited(content) {
            return Err("free text with an empty end among others is not supported".to_owned());
        }
        let tag = sequence(vec![rest, self.format(content, &own, depth + 1)?]);
        Ok(self.ended(tag, ends))
    }

    fn triggered(&mut self, format: &Value, ends: &[&str], depth: usize) -> Result<Part, String> {
        let triggers = marks(list_of(format, "triggers")?, "triggers")?;
        let tags = list_of(format, "tags")?;
        if triggers.is_empty() || triggers.contains(&"") || tags.is_empty() {
            return Err("triggered tags have triggers and tags".to_owned());
        }
        if ends.contains(&"") {
            return Err("free text with an empty end among others is not supported".to_owned());
        }
        alike::check(tags)?;
        let mut own: Vec<Vec<Part>> = vec![Vec::new(); triggers.len()];
        for tag in tags {
            let begin = text_of(tag, "begin")?;
            // One tag has one trigger: the first that it begins with.
            let trigger = triggers.iter().position(|trigger| begin.starts_with(trigger));
            let trigger =
                trigger.ok_or_else(|| format!("the tag `{begin}` begins with no trigger"))?;
            own[trigger].push(self.limited_tag(tag, triggers[trigger], depth)?);
        }
        let all: Vec<&str> = triggers.iter().chain(ends).copied().collect();
        let (mut with_text, mut bare) = (Vec::new(), Vec::new());
        for (trigger, own) in triggers.iter().zip(own).filter(|(_, own)| !own.is_empty()) {
            let rest = self.named(choice(own))?;
            with_text.push(sequence(vec![self.text_up_to(trigger, &all)?, rest.clone()]));
            bare.push(sequence(vec![self.literal(trigger), rest]));
        }
        let (with_text, bare) = (choice(with_text), choice(bare));
        let tail = match ends.is_empty() {
            true => self.free_text(&all)?,
            false => self.text_until(ends, &all)?,
        };
        Ok(match (is_set(format, "at_least_one"), is_set(format, "stop_after_first")) {
            (false, false) => sequence(vec![Part::Many(Box::new(with_text)), tail]),
            (false, true) => choice(vec![self.ended(with_text, ends), tail]),
            (true, false) => sequence(vec![bare, Part::Many(Box::new(with_text)), tail]),
            (true, true) => self.ended(bare, ends),
        })
    }

    fn separated(&mut self, format: &Value, depth: usize) -> Result<Part, String> {
        let tags = list_of(format, "tags")?;
        alike::check(tags)?;
        let tags = tags.iter().map(|tag| self.limited_tag(tag, "", depth));
        let tags: Result<Vec<_>, _> = tags.collect();
        let tag = self.named(choice(tags?))?;
        let separator = self.literal(text_of(format, "separator")?);
        let many = match is_set(format, "stop_after_first") {
            true => tag,
            false => {
                let more = sequence(vec![separator, tag.clone()]);
                sequence(vec![tag, Part::Many(Box::new(more))])
            }
        };
        Ok(match is_set(format, "at_least_one") {
            true => many,
            false => choice(vec![many, sequence(Vec::new())]),
        })
    }

    /// A tag that other things may follow.
    fn limited_tag(&mut self, tag: &Value, trigger: &str, depth: usize) -> Result<Part, String> {
        match is_unlimited(tag) || tag.get("content").is_some_and(is_unlimited) && has_no_end(tag) {
            true => Err("free text in a tag without an end is not supported here".to_owned()),
            false => self.tag(tag, trigger, &[], depth + 1),
        }
    }

    /// `text`, with the tokens of special tokens in it.
    fn literal(&self, text: &str) -> Part {
        let plain = |text: &str| Part::Text(Value::from(text).to_string());
        let mut parts = Vec::new();
        let mut end = 0;
        for (range, id) in self.special.find_all(text) {
            if end < range.start {
                parts.push(plain(&text[end..range.start]));
            }
            parts.push(Part::Token(id));
            end = range.end;
        }
        if end < text.len() {
            parts.push(plain(&text[end..]));
        }
        sequence(parts)
    }

    /// Free text up to the first place where one of `marks` stands, which is one of `ends`;
    /// all the rest if there are none.
    fn text_until(&mut self, ends: &[&str], marks: &[&str]) -> Result<Part, String> {
        if ends.is_empty() {
            return self.free_text(&[]);
        }
        let texts: Result<Vec<_>, _> = ends.iter().map(|end| self.text_up_to(end, marks)).collect();
        Ok(choice(texts?))
    }

    /// Free text, and then `mark`: the shortest text that ends with one of `marks`.
    fn text_up_to(&mut self, mark: &str, marks: &[&str]) -> Result<Part, String> {
        if self.special.is_in(mark) {
            return Ok(sequence(vec![self.free_text(marks)?, self.literal(mark)]));
        }
        let earlier = self.with_one_of(marks, "(.|\\n)+");
        self.terminal_of(&format!("/(.|\\n)*{}/{earlier}", escaped(mark)))
    }

    /// Free text with none of `marks` in it.
    fn free_text(&mut self, marks: &[&str]) -> Result<Part, String> {
        let within = self.with_one_of(marks, "(.|\\n)*");
        self.terminal_of(&format!("/(.|\\n)*/{within}"))
    }

    /// What takes texts with one of `marks`, and `more` after it, out of a terminal. Special
    /// tokens are in no text anyway.
    fn with_one_of(&self, marks: &[&str], more: &str) -> String {
        let marks = marks.iter().filter(|mark| !self.special.is_in(mark));
        let marks: Vec<_> = marks.map(|mark| escaped(mark)).collect();
        match marks.is_empty() {
            true => String::new(),
            false => format!(" & ~/(.|\\n)*({}){more}/", marks.join("|")),
        }
    }

    fn terminal_of(&mut self, body: &str) -> Result<Part, String> {
        let name = self.new_name("T");
        self.line(&name, body)?;
        Ok(Part::Text(name))
    }

    /// The same by a name, for what stands in several places.
    fn named(&mut self, part: Part) -> Result<Part, String> {
        if part.is_terminal() {
            return self.terminal_of(&part.terminal());
        }
        let name = self.new_name("r");
        let body = self.expr(&part)?;
        self.line(&name, &body)?;
        Ok(Part::Rule(name))
    }

    /// A part of a rule. The largest runs that are terminals get names of their own.
    fn expr(&mut self, part: &Part) -> Result<String, String> {
        if part.is_terminal() {
            let text = part.terminal();
            return match text == "\"\"" {
                true => Ok(text),
                false => self.terminal_of(&text).map(|name| name.terminal()),
            };
        }
        match part {
            Part::Sequence(parts) => {
                let together = |a: &Part, b: &Part| a.is_terminal() && b.is_terminal();
                let mut texts = Vec::new();
                for run in parts.chunk_by(together) {
                    texts.push(self.expr(&sequence(run.to_vec()))?);
                }
                Ok(format!("({})", texts.join(" ")))
            }
            Part::Choice(parts) => {
                let (terminals, others): (Vec<_>, Vec<_>) =
                    parts.iter().cloned().partition(Part::is_terminal);
                let terminals = (!terminals.is_empty()).then(|| choice(terminals));
                let texts = terminals.iter().chain(&others).map(|part| self.expr(part));
                Ok(format!("({})", texts.collect::<Result<Vec<_>, _>>()?.join(" | ")))
            }
            Part::Many(part) => Ok(format!("({})*", self.expr(part)?)),
            Part::Token(id) => Ok(format!("<[{id}]>")),
            Part::Json(text) | Part::Text(text) => Ok(text.clone()),
            Part::Rule(name) => Ok(name.clone()),
        }
    }
}

/// Whether free text stands at the format's end, up to what follows it.
fn is_unlimited(format: &Value) -> bool {
    let list = || format.get("elements").and_then(Value::as_array);
    match format.get("type").and_then(Value::as_str) {
        Some("any_text") => true,
        Some("triggered_tags") => {
            !(is_set(format, "at_least_one") && is_set(format, "stop_after_first"))
        }
        Some("sequence") => list().and_then(|list| list.last()).is_some_and(is_unlimited),
        Some("or") => list().is_some_and(|list| list.iter().any(is_unlimited)),
        Some("tag") => has_no_end(format) && format.get("content").is_some_and(is_unlimited),
        _ => false,
    }
}

fn has_no_end(tag: &Value) -> bool {
    ends_of(tag).is_ok_and(|ends| ends.iter().all(|end| end.is_empty()))
}

fn ends_of(tag: &Value) -> Result<Vec<&str>, String> {
    match tag.get("end") {
        Some(Value::String(end)) => Ok(vec![end]),
        Some(Value::Array(ends)) if !ends.is_empty() => marks(ends, "ends"),
        _ => Err("a tag has no end".to_owned()),
    }
}

/// The texts among `list`.
fn marks<'a>(list: &'a [Value], key: &str) -> Result<Vec<&'a str>, String> {
    match list.len() {
        0..=MAX_MARKS => {
            let texts = list.iter().map(|text| text.as_str().ok_or(format!("{key} are texts")));
            texts.collect()
        }
        len => Err(format!("{len} {key}, {MAX_MARKS} at most")),
    }
}

/// A regular expression for a text, by the numbers of its characters.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        let _ = write!(escaped, r"\x{{{:X}}}", c as u32);
        escaped
    })
}

fn text_of<'a>(format: &'a Value, key: &str) -> Result<&'a str, String> {
    let text = format.get(key).and_then(Value::as_str);
    text.ok_or_else(|| format!("`{key}` is missing, or no text"))
}

fn list_of<'a>(format: &'a Value, key: &str) -> Result<&'a [Value], String> {
    let list = format.get(key).and_then(Value::as_array).map(Vec::as_slice);
    list.ok_or_else(|| format!("`{key}` is missing, or no list"))
}

fn is_set(format: &Value, key: &str) -> bool {
    format.as_object().is_some_and(|format: &Map<_, _>| format.get(key) == Some(&Value::Bool(true)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        GrammarKind::StructuralTag,
        testing::{SPECIAL, byte_tokens, check, compile, refusals},
    };

    #[test]
    fn text_up_to_a_trigger_is_free_and_what_follows_is_not() {
        let legacy = json!({"type": "structural_tag", "triggers": ["<f="], "structures": [
            {"begin": "<f=a>", "schema": {"type": "object", "properties":
                {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false},
             "end": "</f>"},
            {"begin": "<f=b>", "end": "</f>"}]});
        check(
            StructuralTag,
            &legacy.to_string(),
            &[
                "no call, and < or <f",
                r#"<f=a>{"x": 1}</f>"#,
                r#"So: <f=b>[true]</f> and <f=a>{"x":2}</f>."#,
            ],
            &["<f=c>{}</f>", r#"<f=a>{"y": 1}</f>"#, r#"<f=a>{"x": 1}"#, "So <f="],
        );
    }

    #[test]
    fn formats_of_the_newer_form() {
        let format = |format| json!({"type": "structural_tag", "format": format}).to_string();
        let tag = |begin: &str, content| json!({"type": "tag", "begin": begin, "content": content, "end": "</>"});
        let sequence = json!({"type": "sequence", "elements": [
            {"type": "const_string", "value": "a\"b"}, {"type": "regex", "pattern": "[0-9]/"},
            {"type": "or", "elements": [tag("<j>", json!({"type": "json_schema"})),
                                        tag("<t>", json!({"type": "any_text"}))]}]});
        let whole = [r#"a"b1/<j>[1]</>"#, r#"a"b1/<t>x<y</>"#];
        check(StructuralTag, &format(sequence), &whole, &[r#"a"b1/<j>x</>"#, r#"a"b1/<t>x</>y"#]);
        let digits = || json!({"type": "regex", "pattern": "[0-9]+"});
        let separated = json!({"type": "tags_with_separator", "separator": ",",
            "tags": [tag("<a>", digits()), tag("<b>", digits())], "at_least_one": true});
        let whole = ["<a>1</>", "<a>1</>,<b>22</>,<a>3</>"];
        check(StructuralTag, &format(separated), &whole, &["", "<a>1</><b>2</>", "<a>1</>,"]);
        let first = json!({"type": "triggered_tags", "triggers": ["<"], "at_least_one": true,
            "stop_after_first": true, "tags": [tag("<a>", digits())]});
        check(StructuralTag, &format(first), &["<a>5</>"], &["x<a>5</>", "<a>5</>x", ""]);
    }

    #[test]
    fn special_tokens_in_marks_are_tokens() {
        let legacy = json!({"triggers": ["<|im_start|>"], "structures": [
            {"begin": "<|im_start|>f:", "schema": {"type": "boolean"}, "end": ";"}]});
        for mut grammar in compile(StructuralTag, &legacy.to_string()) {
            for token in byte_tokens("x") {
                grammar.accept(token).unwrap();
            }
            assert!(grammar.next_tokens().unwrap().allows(SPECIAL));
            grammar.accept(SPECIAL).unwrap();
            for token in byte_tokens("f:true;") {
                assert!(grammar.next_tokens().unwrap().allows(token));
                grammar.accept(token).unwrap();
            }
        }
    }

    /// A tag for each of `count` triggers, which end in `len` zeros.
    fn with_triggers(count: usize, len: usize) -> String {
        let triggers: Vec<_> = (0..count).map(|n| format!("<{n}.{}", "0".repeat(len))).collect();
        let structures: Vec<_> =
            triggers.iter().map(|begin| json!({"begin": begin, "end": ";"})).collect();
        json!({"structures": structures, "triggers": triggers}).to_string()
    }

    #[test]
    fn many_triggers_are_told_apart() {
        let tag = with_triggers(32, 1);
        check(StructuralTag, &tag, &["a <31.01; b <0.0[];", "<32.0x"], &["<31.0;", "<3.0x"]);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let ends: Vec<_> = (0..129).map(|n| format!("</{n}>")).collect();
        let ends = json!({"type": "tag", "begin": "<a>", "content": {"type": "any_text"},
            "end": ends});
        let any_text = json!({"type": "any_text"});
        let either = [json!({"type": "json_schema"}), any_text.clone()];
        let or_text = json!({"format": {"type": "or", "elements": either}}).to_string();
        let row = [any_text.clone(), any_text];
        let amid = json!({"format": {"type": "sequence", "elements": row}}).to_string();
        for (text, reason) in [
            (
                r#"{"format":{"type":"qwen_xml_parameter"}}"#,
                "`qwen_xml_parameter` is not supported",
            ),
            (r#"{"format":{"type":"regex"}}"#, "`pattern` is missing"),
            ("{}", "a structural tag has structures or a format"),
            (
                r#"{"structures":[{"begin":"<a>","end":""}],"triggers":["<b"]}"#,
                "the tag `<a>` begins with no trigger",
            ),
            (&or_text, "alternatives that begin alike"),
            (&amid, "`any_text` amid a sequence"),
            (&with_triggers(129, 1), "129 triggers, 128 at most"),
            (&with_triggers(100, 2000), "its rules take more than 4194304 bytes"),
            (&json!({"format": ends}).to_string(), "129 ends, 128 at most"),
        ] {
            for error in refusals(StructuralTag, text) {
                assert!(error.to_string().contains(reason), "{text}: {error}");
            }
        }
    }
}
