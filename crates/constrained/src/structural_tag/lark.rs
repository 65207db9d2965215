//! Structural tags as the Lark of llguidance.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::SpecialTokens;

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
    let start = writer.format(format, None, 0)?;
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

    /// An expression for what `format` describes. `end` is what follows it, if text goes on
    /// up to there.
    fn format(
        &mut self,
        format: &Value,
        end: Option<&[&str]>,
        depth: usize,
    ) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("formats are too deeply nested".to_owned());
        }
        let kind = text_of(format, "type")?;
        match kind {
            "const_string" => Ok(self.literal(text_of(format, "value")?)),
            "json_schema" => {
                let schema = format.get("json_schema").unwrap_or(&Value::Bool(true));
                Ok(format!("%json {}", (self.json)(schema)?))
            }
            "regex" => {
                let name = self.new_name("R");
                let pattern = llguidance::regex_to_lark(text_of(format, "pattern")?, "");
                self.line(&name, &format!("/{pattern}/"))?;
                Ok(name)
            }
            "any_text" => self.text_until(end.unwrap_or_default()),
            "sequence" => {
                let parts = list_of(format, "elements")?;
                let is_text = |part: &Value| part["type"] == "any_text";
                if parts.iter().rev().skip(1).any(is_text) {
                    return Err("`any_text` amid a sequence is not supported".to_owned());
                }
                let parts: Result<Vec<_>, _> =
                    parts.iter().map(|part| self.format(part, None, depth + 1)).collect();
                Ok(format!("({})", parts?.join(" ")))
            }
            "or" => {
                let parts = list_of(format, "elements")?.iter();
                let parts: Result<Vec<_>, _> =
                    parts.map(|part| self.format(part, end, depth + 1)).collect();
                Ok(format!("({})", parts?.join(" | ")))
            }
            "tag" => self.tag(format, "", depth),
            "triggered_tags" => self.triggered(format, depth),
            "tags_with_separator" => self.separated(format, depth),
            other => Err(format!("the format `{other}` is not supported")),
        }
    }

    /// A tag without the first `trigger` of its beginning.
    fn tag(&mut self, tag: &Value, trigger: &str, depth: usize) -> Result<String, String> {
        let begin = text_of(tag, "begin")?;
        let rest = begin.strip_prefix(trigger).ok_or("a tag begins with no trigger")?;
        let content = tag.get("content").ok_or("a tag has no content")?;
        let ends: Vec<&str> = match tag.get("end") {
            Some(Value::String(end)) => vec![end],
            Some(Value::Array(ends)) => marks(ends, "ends")?,
            _ => return Err("a tag has no end".to_owned()),
        };
        let rest = self.literal(rest);
        let content = match content.get("type").and_then(Value::as_str) {
            // The end is a part of the lexeme.
            Some("any_text") => return Ok(format!("({rest} {})", self.text_until(&ends)?)),
            _ => self.format(content, Some(&ends), depth + 1)?,
        };
        let ends: Vec<_> = ends.iter().map(|end| self.literal(end)).collect();
        Ok(format!("({rest} {content} ({}))", ends.join(" | ")))
    }

    fn triggered(&mut self, format: &Value, depth: usize) -> Result<String, String> {
        let triggers = marks(list_of(format, "triggers")?, "triggers")?;
        let tags = list_of(format, "tags")?;
        if triggers.is_empty() || triggers.contains(&"") || tags.is_empty() {
            return Err("triggered tags have triggers and tags".to_owned());
        }
        let mut with_text = Vec::new();
        let mut bare = Vec::new();
        for &trigger in &triggers {
            let own = tags.iter().filter(|tag| {
                let begin = tag.get("begin").and_then(Value::as_str).unwrap_or_default();
                // One tag has one trigger: the first that it begins with.
                triggers.iter().find(|trigger| begin.starts_with(**trigger)) == Some(&trigger)
            });
            let own: Result<Vec<_>, _> = own.map(|tag| self.tag(tag, trigger, depth + 1)).collect();
            let own = own?;
            if own.is_empty() {
                continue;
            }
            let rest = self.new_name("tags");
            self.line(&rest, &own.join(" | "))?;
            with_text.push(format!("{} {rest}", self.text_up_to(trigger, &triggers)?));
            bare.push(format!("{} {rest}", self.literal(trigger)));
        }
        for tag in tags {
            let begin = text_of(tag, "begin")?;
            if !triggers.iter().any(|trigger| begin.starts_with(trigger)) {
                return Err(format!("the tag `{begin}` begins with no trigger"));
            }
        }
        let tail = self.free_text(&triggers)?;
        let (with_text, bare) = (with_text.join(" | "), bare.join(" | "));
        Ok(match (is_set(format, "at_least_one"), is_set(format, "stop_after_first")) {
            (false, false) => format!("(({with_text})* {tail})"),
            (false, true) => format!("({with_text} | {tail})"),
            (true, false) => format!("(({bare}) ({with_text})* {tail})"),
            (true, true) => format!("({bare})"),
        })
    }

    fn separated(&mut self, format: &Value, depth: usize) -> Result<String, String> {
        let tags = list_of(format, "tags")?.iter();
        let tags: Result<Vec<_>, _> = tags.map(|tag| self.tag(tag, "", depth + 1)).collect();
        let name = self.new_name("tags");
        self.line(&name, &tags?.join(" | "))?;
        let separator = self.literal(text_of(format, "separator")?);
        let many = match is_set(format, "stop_after_first") {
            true => name,
            false => format!("({name} ({separator} {name})*)"),
        };
        Ok(if is_set(format, "at_least_one") { many } else { format!("({many})?") })
    }

    /// `text`, with the tokens of special tokens in it.
    fn literal(&self, text: &str) -> String {
        let mut parts = Vec::new();
        let mut end = 0;
        for (range, id) in self.special.find_all(text) {
            if end < range.start {
                parts.push(Value::from(&text[end..range.start]).to_string());
            }
            parts.push(format!("<[{id}]>"));
            end = range.end;
        }
        if end < text.len() || parts.is_empty() {
            parts.push(Value::from(&text[end..]).to_string());
        }
        parts.join(" ")
    }

    /// The shortest text that ends with one of `ends`, the end included.
    fn text_until(&mut self, ends: &[&str]) -> Result<String, String> {
        if ends.iter().all(|end| end.is_empty()) {
            return self.free_text(&[]);
        }
        let texts: Result<Vec<_>, _> = ends.iter().map(|end| self.text_up_to(end, ends)).collect();
        Ok(format!("({})", texts?.join(" | ")))
    }

    /// Free text with none of `marks` in it, and then `mark`.
    fn text_up_to(&mut self, mark: &str, marks: &[&str]) -> Result<String, String> {
        if self.special.is_in(mark) {
            return Ok(format!("{} {}", self.free_text(marks)?, self.literal(mark)));
        }
        let name = self.new_name("up_to");
        let others: Vec<&str> = marks.iter().copied().filter(|other| *other != mark).collect();
        let without = self.without(&others);
        self.line(&format!("{name}[lazy]"), &format!("/(.|\\n)*{}/{without}", escaped(mark)))?;
        Ok(name)
    }

    /// Free text with none of `marks` in it.
    fn free_text(&mut self, marks: &[&str]) -> Result<String, String> {
        let name = self.new_name("TEXT");
        let without = self.without(marks);
        self.line(&name, &format!("/(.|\\n)*/{without}"))?;
        Ok(name)
    }

    /// What takes texts with one of `marks` in them out of a terminal. Special tokens are
    /// in no text anyway.
    fn without(&self, marks: &[&str]) -> String {
        let marks = marks.iter().filter(|mark| !self.special.is_in(mark));
        let marks: Vec<_> = marks.map(|mark| escaped(mark)).collect();
        match marks.is_empty() {
            true => String::new(),
            false => format!(" & ~/(.|\\n)*({})(.|\\n)*/", marks.join("|")),
        }
    }
}

/// The texts among `list`.
fn marks<'a>(list: &'a [Value], key: &str) -> Result<Vec<&'a str>, String> {
    match list.len() {
        0..=MAX_MARKS => Ok(list.iter().filter_map(Value::as_str).collect()),
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
