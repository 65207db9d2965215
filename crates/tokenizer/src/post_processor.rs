//! The tokens that a model wants around every text.

use serde_json::{Map, Value, json};
use types::TokenId;

/// A token by its spelling and its id.
pub(crate) type Named<'a> = (&'a str, TokenId);

/// The `post_processor` entry that puts tokens before and after a text; null if
/// there are none.
pub(crate) fn around(before: &[Named<'_>], after: &[Named<'_>]) -> Value {
    if before.is_empty() && after.is_empty() {
        return Value::Null;
    }
    let special = |token: &Named<'_>| json!({"SpecialToken": {"id": token.0, "type_id": 0}});
    let parts = |sequence: &str| {
        let text = json!({"Sequence": {"id": sequence, "type_id": 0}});
        let parts = before.iter().map(special).chain([text]);
        parts.chain(after.iter().map(special)).collect::<Vec<_>>()
    };
    let used: Map<String, Value> = before
        .iter()
        .chain(after)
        .map(|&(token, id)| {
            (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}))
        })
        .collect();
    let pair = [parts("A"), parts("B")].concat();
    json!({"type": "TemplateProcessing", "single": parts("A"), "pair": pair, "special_tokens": used})
}
