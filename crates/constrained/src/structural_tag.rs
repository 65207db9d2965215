//! Structural tags: free text in which certain beginnings start what follows a grammar.
//!
//! SGLang has two forms of them: `structures` with `triggers`, and XGrammar's `format`.
//! The first becomes the second here.
//!
//! Upstream: `is_legacy_structural_tag` in `sglang/srt/constrained/utils.py`.

mod alike;
mod lark;
mod parts;
#[cfg(test)]
mod reference;
mod repeats;
mod special_tokens;

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(crate) use self::{lark::to_lark, repeats::repeats, special_tokens::SpecialTokens};

/// The older form.
#[derive(Debug, Deserialize)]
struct Legacy {
    structures: Vec<Structure>,
    triggers: Vec<String>,
    #[serde(default)]
    at_least_one: bool,
}

#[derive(Debug, Deserialize)]
struct Structure {
    begin: String,
    /// Any JSON without it.
    #[serde(default)]
    schema: Option<Value>,
    end: String,
}

/// The newer form of either.
///
/// # Errors
/// A text that is neither.
pub(crate) fn normalized(text: &str) -> Result<Value, String> {
    let mut tag: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    if tag.contains_key("structures") {
        let legacy: Legacy =
            serde_json::from_value(Value::Object(tag)).map_err(|error| error.to_string())?;
        return Ok(of_legacy(legacy));
    }
    tag.insert("type".to_owned(), json!("structural_tag"));
    if let Some(format) = tag.get_mut("format") {
        fill_in_schemas(format);
    }
    Ok(Value::Object(tag))
}

fn of_legacy(legacy: Legacy) -> Value {
    let tags = legacy.structures.into_iter().map(|Structure { begin, schema, end }| {
        let schema = schema.unwrap_or_else(|| json!({}));
        let content = json!({"type": "json_schema", "json_schema": schema});
        json!({"type": "tag", "begin": begin, "content": content, "end": end})
    });
    let format = json!({
        "type": "triggered_tags",
        "triggers": legacy.triggers,
        "tags": tags.collect::<Vec<_>>(),
        "at_least_one": legacy.at_least_one,
    });
    json!({"type": "structural_tag", "format": format})
}

/// A schema that is not there, or `null`, allows any JSON.
fn fill_in_schemas(format: &mut Value) {
    let Value::Object(format) = format else { return };
    let is_schema = matches!(
        format.get("type").and_then(Value::as_str),
        Some("json_schema" | "qwen_xml_parameter")
    );
    if is_schema && format.get("json_schema").is_none_or(Value::is_null) {
        format.insert("json_schema".to_owned(), json!({}));
    }
    for key in ["content", "elements", "tags"] {
        match format.get_mut(key) {
            Some(Value::Array(inner)) => inner.iter_mut().for_each(fill_in_schemas),
            Some(inner) => fill_in_schemas(inner),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_becomes_the_newer_one() {
        let text = r#"{"structures":[{"begin":"<a>","schema":{"type":"integer"},"end":"</a>"},
            {"begin":"<b>","end":"</b>"}],"triggers":["<"]}"#;
        let tag = normalized(text).unwrap();
        assert_eq!(tag["format"]["triggers"], json!(["<"]));
        let tags = &tag["format"]["tags"];
        assert_eq!(tags[0]["content"]["json_schema"], json!({"type": "integer"}));
        assert_eq!(
            (&tags[1]["begin"], &tags[1]["content"]["json_schema"]),
            (&json!("<b>"), &json!({}))
        );
    }

    #[test]
    fn schemas_that_are_not_there_allow_anything() {
        let text = r#"{"format":{"type":"sequence","elements":[
            {"type":"tag","begin":"a","content":{"type":"json_schema"},"end":"b"}]}}"#;
        let tag = normalized(text).unwrap();
        assert_eq!(tag["format"]["elements"][0]["content"]["json_schema"], json!({}));
        assert_eq!(tag["type"], "structural_tag");
        assert!(normalized("[]").is_err() && normalized(r#"{"structures":[]}"#).is_err());
    }
}
