//! Structural tags that after each call are where they began.

use std::collections::HashSet;

use serde_json::Value;
use types::TokenId;

use super::SpecialTokens;

/// Whether text and calls take turns without end, and nothing of that text can stand in a
/// call: then a parser that expects text, and nothing else, may expect all that it expected
/// at the beginning. Says so only where it is easy to see.
pub(crate) fn repeats(tag: &Value, special: &SpecialTokens) -> bool {
    let format = &tag["format"];
    let list = |key: &str| format[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_set = |key: &str| format[key] == Value::Bool(true);
    if format["type"] != "triggered_tags" || is_set("at_least_one") || is_set("stop_after_first") {
        return false;
    }
    let tokens_in = |text: &str| special.find_all(text).map(|(_, id)| id).collect::<Vec<_>>();
    let triggers: Vec<&str> = list("triggers").iter().filter_map(Value::as_str).collect();
    let marks: HashSet<TokenId> = triggers.iter().flat_map(|text| tokens_in(text)).collect();
    list("tags").iter().all(|tag| {
        let begin = tag["begin"].as_str().unwrap_or_default();
        let rest = triggers.iter().find_map(|trigger| begin.strip_prefix(trigger));
        let ends = tag["end"].as_array().map_or(std::slice::from_ref(&tag["end"]), Vec::as_slice);
        let texts = ends.iter().filter_map(Value::as_str).chain(rest);
        // JSON has no terminal for any text; the texts around it could name a trigger's token.
        tag["content"]["type"] == "json_schema"
            && texts.flat_map(tokens_in).all(|token| !marks.contains(&token))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_loops_of_text_and_calls_repeat() {
        let special = SpecialTokens::new(&crate::testing::vocabulary()).unwrap();
        let tag = |content: &str, end: &str| {
            json!({"type": "tag", "begin": "<|im_start|>f:",
            "content": {"type": content, "json_schema": {}}, "end": end})
        };
        let format = |tags: &[Value], key: &str| {
            json!({"format": {"type": "triggered_tags",
            "triggers": ["<|im_start|>", "<f"], "tags": tags, key: true}})
        };
        let calls = [tag("json_schema", ";")];
        assert!(repeats(&format(&calls, "-"), &special));
        for (tags, key) in [
            (&calls[..], "at_least_one"),
            (&calls, "stop_after_first"),
            (&[tag("any_text", ";"), tag("json_schema", ";")], "-"),
            (&[tag("json_schema", "<|im_start|>")], "-"),
        ] {
            assert!(!repeats(&format(tags, key), &special), "{tags:?} {key}");
        }
        assert!(!repeats(&json!({"format": {"type": "any_text"}}), &special));
    }
}
