//! Alternatives that the library could not tell apart.
//!
//! Of terminals that may come next the library takes the one that reaches furthest, and
//! forgets the others. Alternatives that are regular are one terminal, where that does no
//! harm; one with a schema in it is not, so it has to show by its beginning.

use std::collections::BTreeSet;

use regex_syntax::hir::literal::Extractor;
use serde_json::Value;

use crate::anchors::without_anchors;

/// # Errors
/// One alternative begins as another may go on, and one of the two has a schema.
pub(super) fn check(alternatives: &[Value]) -> Result<(), String> {
    if !alternatives.iter().any(has_schema) {
        return Ok(());
    }
    let mut sorted: Vec<(&str, &Value)> = alternatives.iter().map(split).collect();
    sorted.sort_by_key(|(begin, _)| *begin);
    // Those that begin as the current one does.
    let mut before: Vec<(&str, &Value)> = Vec::new();
    for (begin, rest) in sorted {
        while before.pop_if(|(shorter, _)| !begin.starts_with(*shorter)).is_some() {}
        for (shorter, other) in &before {
            let next = match begin[shorter.len()..].bytes().next() {
                Some(byte) => Some(BTreeSet::from([byte])),
                None if is_schema(rest) && is_schema(other) => continue,
                None => first_bytes(rest),
            };
            let (has_schema, others) = (has_schema(rest) || has_schema(other), first_bytes(other));
            let are_alike = match (next, others) {
                (Some(next), Some(others)) => !next.is_disjoint(&others),
                _ => true,
            };
            if has_schema && are_alike {
                return Err(format!(
                    "alternatives that begin alike (`{begin}`), one of them with a schema, are \
                     not supported"
                ));
            }
        }
        before.push((begin, rest));
    }
    Ok(())
}

/// What an alternative begins with for certain, and what comes then.
fn split(format: &Value) -> (&str, &Value) {
    let text = |key: &str| format.get(key).and_then(Value::as_str);
    match (text("begin"), format.get("content")) {
        (Some(begin), Some(content)) => (begin, content),
        _ => ("", format),
    }
}

fn is_schema(format: &Value) -> bool {
    format.get("type").is_some_and(|kind| kind == "json_schema")
}

fn has_schema(format: &Value) -> bool {
    let inner = |key: &str| match format.get(key) {
        Some(Value::Array(list)) => list.iter().any(has_schema),
        Some(one) => has_schema(one),
        None => false,
    };
    is_schema(format) || ["content", "elements", "tags"].into_iter().any(inner)
}

/// Bytes that it may begin with; `None` if that is not known, or it may be empty.
fn first_bytes(format: &Value) -> Option<BTreeSet<u8>> {
    let text = |key: &str| format.get(key).and_then(Value::as_str);
    let list = || format.get("elements").and_then(Value::as_array);
    match text("type")? {
        "const_string" => Some(BTreeSet::from([text("value")?.bytes().next()?])),
        "json_schema" => {
            let begins: &[u8] = match format["json_schema"].get("type").and_then(Value::as_str) {
                Some("object") => b"{",
                Some("array") => b"[",
                Some("string") => b"\"",
                _ => b"{[\"-0123456789tfn",
            };
            Some(begins.iter().chain(b" \t\n\r").copied().collect())
        }
        "regex" => {
            let hir = regex_syntax::parse(without_anchors(text("pattern")?)).ok()?;
            let prefixes = Extractor::new().limit_class(256).limit_total(1024).extract(&hir);
            prefixes.literals()?.iter().map(|prefix| prefix.as_bytes().first().copied()).collect()
        }
        "tag" => match text("begin")?.bytes().next() {
            Some(byte) => Some(BTreeSet::from([byte])),
            None => first_bytes(format.get("content")?),
        },
        "sequence" => first_bytes(list()?.first()?),
        "or" => {
            let each = list()?.iter().map(first_bytes);
            Some(each.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
        }
        _ => None,
    }
}
