//! Regular expressions for what stands between the quotes of a JSON string.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look};
use serde_json::Value;

/// One character, as itself or escaped.
pub(super) const STRING_CHAR: &str = concat!(
    r#"(?:[^"\\\x00-\x1F]|\\(?:["\\/bfnrt]|u(?:[0-9A-CEFa-cef][0-9A-Fa-f]{3}|[dD][0-7][0-9A-Fa-f]{2}"#,
    r"|[dD][89ABab][0-9A-Fa-f]{2}\\u[dD][C-Fc-f][0-9A-Fa-f]{2})))"
);
/// What JSON has short escapes for, besides itself.
const ESCAPED: [char; 7] = ['"', '\\', '\u{8}', '\u{c}', '\n', '\r', '\t'];
/// Without the 29th of February: not every year has it.
const DATE: &str = "[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])\
                    |(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)";
const TIME: &str = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+\-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
const UUID: &str = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";

/// For this text alone.
pub(super) fn literal(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    regex_syntax::escape(&quoted[1..quoted.len() - 1])
}

/// For strings of the JSON schema's `format`, if it is supported.
pub(super) fn format(name: &str) -> Option<String> {
    match name {
        "date" => Some(DATE.to_owned()),
        "time" => Some(TIME.to_owned()),
        "date-time" => Some(format!("{DATE}T{TIME}")),
        "uuid" => Some(UUID.to_owned()),
        _ => None,
    }
}

/// For the texts in which `pattern` is found. `\d` and `\w` are ASCII's, as in JavaScript.
///
/// # Errors
/// What is wrong with the pattern, or cannot be said.
pub(super) fn pattern(pattern: &str) -> Result<String, String> {
    let invalid = || format!("the pattern `{pattern}` is not supported");
    let hir =
        regex_syntax::parse(&llguidance::regex_to_lark(pattern, "dw")).map_err(|_| invalid())?;
    let mut parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(&hir),
    };
    let is =
        |part: Option<&Hir>, look| part.is_some_and(|part| *part.kind() == HirKind::Look(look));
    let begins = is(parts.first(), Look::Start);
    parts = &parts[usize::from(begins)..];
    let ends = is(parts.last(), Look::End);
    parts = &parts[..parts.len() - usize::from(ends)];
    let inner: Option<String> = parts.iter().map(of_hir).collect();
    let anything = |is_bound| if is_bound { String::new() } else { format!("{STRING_CHAR}*") };
    Ok(format!("{}{}{}", anything(begins), inner.ok_or_else(invalid)?, anything(ends)))
}

/// `None` for anchors inside.
fn of_hir(hir: &Hir) -> Option<String> {
    Some(match hir.kind() {
        HirKind::Empty => String::new(),
        HirKind::Literal(text) => literal(str::from_utf8(&text.0).ok()?),
        HirKind::Class(Class::Unicode(class)) => of_class(class)?,
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => return None,
        HirKind::Capture(capture) => of_hir(&capture.sub)?,
        HirKind::Repetition(repetition) => {
            let max = repetition.max.map(|max| max.to_string()).unwrap_or_default();
            format!("(?:{}){{{},{max}}}", of_hir(&repetition.sub)?, repetition.min)
        }
        HirKind::Concat(parts) => parts.iter().map(of_hir).collect::<Option<String>>()?,
        HirKind::Alternation(parts) => {
            let parts: Option<Vec<String>> = parts.iter().map(of_hir).collect();
            format!("(?:{})", parts?.join("|"))
        }
    })
}

/// Its characters as themselves where JSON allows that, and escaped where it has a short
/// escape.
fn of_class(class: &ClassUnicode) -> Option<String> {
    let mut choices = Vec::new();
    for c in ESCAPED {
        if class.ranges().iter().any(|range| range.start() <= c && c <= range.end()) {
            choices.push(literal(&c.to_string()));
        }
    }
    let mut plain = class.clone();
    let range = ClassUnicodeRange::new;
    plain.difference(&ClassUnicode::new([
        range('\0', '\u{1f}'),
        range('"', '"'),
        range('\\', '\\'),
    ]));
    if !plain.ranges().is_empty() {
        let hex = |c: char| format!(r"\x{{{:X}}}", u32::from(c));
        let ranges = plain.ranges().iter();
        let ranges: String =
            ranges.map(|r| format!("{}-{}", hex(r.start()), hex(r.end()))).collect();
        choices.push(format!("[{ranges}]"));
    }
    (!choices.is_empty()).then(|| format!("(?:{})", choices.join("|")))
}
