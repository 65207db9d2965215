//! How deep a JSON schema leads.

use std::collections::HashSet;

use serde_json::Value;

use crate::compiler::MAX_LEVELS;

/// A chain of references goes through each of them once at most, and between two of them
/// through the schema's own depth.
///
/// # Errors
/// It may be deeper than the library's recursion can go.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    let mut refs = HashSet::new();
    let depth = depth(schema, &mut refs);
    let (num_refs, num_levels) = (refs.len(), (refs.len() + 1) * depth);
    match num_levels <= MAX_LEVELS {
        true => Ok(()),
        false => Err(format!(
            "a schema {depth} levels deep with {num_refs} references may nest {num_levels} levels, \
             {MAX_LEVELS} at most"
        )),
    }
}

fn depth<'a>(value: &'a Value, refs: &mut HashSet<&'a str>) -> usize {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if let ("$ref" | "$dynamicRef", Value::String(to)) = (key.as_str(), value) {
                    refs.insert(to);
                }
            }
            1 + fields.values().map(|value| depth(value, refs)).max().unwrap_or(0)
        }
        Value::Array(items) => 1 + items.iter().map(|item| depth(item, refs)).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn what_counts_is_different_references_times_depth() {
        let with_refs = |count: usize| {
            let refs: Vec<_> = (0..count).map(|n| json!({"$ref": format!("#/{n}")})).collect();
            json!({"anyOf": refs, "not": {"$ref": "#/0"}})
        };
        assert_eq!(check(&with_refs(5332)), Ok(()));
        let message = "a schema 3 levels deep with 5333 references may nest 16002 levels, 16000 at \
                       most";
        assert_eq!(check(&with_refs(5333)), Err(message.to_owned()));
        let wide: Map<_, _> = (0..20_000).map(|n| (n.to_string(), json!({"$ref": "#"}))).collect();
        assert_eq!(check(&json!({"properties": wide})), Ok(()));
    }
}
