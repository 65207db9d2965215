//! Arguments that are written as plain text get their types from the schema of
//! the function's parameters.
//!
//! Upstream: `sglang/srt/function_call/utils.py` and the formats' own rules.

use serde_json::{Map, Number, Value};

use crate::text::parse_literal;

/// Properties of a schema, or of the alternatives it consists of.
pub(super) fn properties(schema: &Value) -> Map<String, Value> {
    if let Some(Value::Object(properties)) = schema.get("properties") {
        return properties.clone();
    }
    let mut merged = Map::new();
    for branch in branches(schema) {
        for (name, property) in properties(branch) {
            merged.entry(name).or_insert(property);
        }
    }
    merged
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["anyOf", "oneOf", "allOf"].map(|key| schema.get(key).and_then(Value::as_array));
    lists.into_iter().flatten().flatten()
}

/// The type that a schema asks for; of several, text goes first.
fn type_of(schema: &Value) -> Option<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => return Some(name),
        Some(Value::Array(names)) if !names.is_empty() => {
            let mut names = names.iter().filter_map(Value::as_str);
            return Some(names.find(|&name| name != "null").unwrap_or("string"));
        }
        _ => {}
    }
    let types: Vec<&str> = match schema.get("enum").and_then(Value::as_array) {
        Some(values) => values.iter().map(json_type).collect(),
        None => branches(schema).filter_map(type_of).collect(),
    };
    let mut types = types.into_iter().filter(|&name| name != "null");
    let first = types.next();
    if types.any(|name| name == "string") {
        return Some("string");
    }
    let implied = [("properties", "object"), ("items", "array")];
    let implied = implied.iter().find(|(key, _)| schema.get(key).is_some());
    first.or(implied.map(|(_, name)| *name))
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Kinds of types, by the names that schemas have for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Number,
    Bool,
    Nested,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        match name.as_str() {
            "string" | "str" | "text" | "varchar" | "char" | "enum" => Self::Text,
            "boolean" | "bool" | "binary" => Self::Bool,
            "object" | "array" | "arr" => Self::Nested,
            _ if begins(&["int", "uint", "long", "short", "unsigned"]) => Self::Integer,
            _ if begins(&["num", "float"]) => Self::Number,
            _ if begins(&["dict", "list"]) => Self::Nested,
            _ => Self::Other,
        }
    }
}

/// How a format reads an argument; `schema` is that of the parameter.
pub(super) type Convert = fn(text: &str, schema: Option<&Value>) -> Value;

/// By the schema alone; a parameter without one is text.
pub(super) fn by_schema(text: &str, schema: Option<&Value>) -> Value {
    if text.eq_ignore_ascii_case("null") {
        return Value::Null;
    }
    let as_text = || Value::String(text.to_owned());
    let Some(schema) = schema else { return as_text() };
    match type_of(schema).map_or(Kind::Text, Kind::of) {
        Kind::Text => as_text(),
        Kind::Integer => integer(text).unwrap_or_else(as_text),
        Kind::Number => number(text).unwrap_or_else(as_text),
        Kind::Bool => Value::Bool(text.eq_ignore_ascii_case("true")),
        Kind::Nested => parse_json(text).or_else(|| parse_literal(text)).unwrap_or_else(as_text),
        Kind::Other => parse_literal(text).unwrap_or_else(as_text),
    }
}

/// As JSON unless the schema wants text; what is no JSON is text.
pub(super) fn json_first(text: &str, schema: Option<&Value>) -> Value {
    let kind = schema.and_then(type_of).map(Kind::of);
    match (kind, parse_json(text)) {
        (Some(Kind::Text), Some(Value::String(quoted))) => Value::String(quoted),
        (Some(Kind::Text), _) => Value::String(text.to_owned()),
        (Some(Kind::Number), Some(Value::String(quoted))) => {
            number(&quoted).unwrap_or(Value::String(quoted))
        }
        (_, Some(value)) => value,
        (_, None) => parse_literal(text).unwrap_or_else(|| Value::String(text.to_owned())),
    }
}

/// The first of the schema's types that fits, the strictest first.
pub(super) fn first_fitting(text: &str, schema: Option<&Value>) -> Value {
    let lower = text.to_ascii_lowercase();
    let as_text = || Value::String(text.to_owned());
    let mut kinds = Vec::new();
    schema.into_iter().for_each(|schema| collect_kinds(schema, &mut kinds));
    if matches!(lower.as_str(), "null" | "none" | "nil") {
        return Value::Null;
    }
    let has = |kind| kinds.contains(&kind);
    let word = match lower.trim() {
        "true" | "1" | "yes" | "on" => Some(Value::Bool(true)),
        "false" | "0" | "no" | "off" => Some(Value::Bool(false)),
        _ => None,
    };
    let fitting = None
        .or_else(|| has(Kind::Integer).then(|| integer(text))?)
        .or_else(|| has(Kind::Number).then(|| number(text))?)
        .or_else(|| has(Kind::Bool).then_some(word)?)
        .or_else(|| has(Kind::Nested).then(|| parse_json(text))?);
    match fitting {
        Some(value) => value,
        None if has(Kind::Text) || kinds.is_empty() => as_text(),
        None => parse_json(text).unwrap_or_else(as_text),
    }
}

fn collect_kinds(schema: &Value, kinds: &mut Vec<Kind>) {
    match schema.get("type") {
        Some(Value::String(name)) => kinds.push(Kind::of(name)),
        Some(Value::Array(names)) => {
            kinds.extend(names.iter().filter_map(Value::as_str).map(Kind::of));
        }
        _ => {}
    }
    let values = schema.get("enum").and_then(Value::as_array);
    kinds.extend(values.into_iter().flatten().map(|value| Kind::of(json_type(value))));
    branches(schema).for_each(|branch| collect_kinds(branch, kinds));
}

/// A value that can still be read as one of the arguments, a level below: serde_json
/// reads 127 levels.
fn parse_json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(|value| depth(value) < 127)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn integer(text: &str) -> Option<Value> {
    let digits = text.trim().trim_start_matches('+');
    // Beyond 64 bits it becomes a float: `serde_json` keeps no more.
    let value: Value = serde_json::from_str(digits).ok()?;
    let is_whole = digits.trim_start_matches('-').chars().all(|c| c.is_ascii_digit());
    (is_whole && value.is_number()).then_some(value)
}

fn number(text: &str) -> Option<Value> {
    let value = integer(text);
    let fraction = || text.trim().parse().ok().and_then(Number::from_f64).map(Value::Number);
    value.or_else(fraction)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn typed(name: &str) -> Value {
        json!({ "type": name })
    }

    #[test]
    fn types_of_schemas() {
        for (schema, name) in [
            (json!({"type": ["null", "integer"]}), Some("integer")),
            (json!({"type": ["null"]}), Some("string")),
            (json!({"anyOf": [{"type": "null"}, {"type": "number"}]}), Some("number")),
            (json!({"oneOf": [{"type": "number"}, {"type": "string"}]}), Some("string")),
            (json!({"enum": [1, 2]}), Some("integer")),
            (json!({"enum": ["a", null]}), Some("string")),
            (json!({"items": {}}), Some("array")),
            (json!({"properties": {}}), Some("object")),
            (json!({}), None),
        ] {
            assert_eq!(type_of(&schema), name, "{schema}");
        }
        let nested = json!({"anyOf": [{"properties": {"a": 1}}, {"properties": {"a": 2, "b": 3}}]});
        assert_eq!(Value::Object(properties(&nested)), json!({"a": 1, "b": 3}));
    }

    #[test]
    fn text_becomes_what_the_schema_says() {
        for (text, name, value) in [
            ("12", "string", json!("12")),
            ("NULL", "string", json!(null)),
            ("12", "integer", json!(12)),
            ("twelve", "integer", json!("twelve")),
            ("12.0", "integer", json!("12.0")),
            ("-1.50", "number", json!(-1.5)),
            ("7", "float", json!(7)),
            ("nan", "number", json!("nan")),
            ("True", "boolean", json!(true)),
            ("yes", "boolean", json!(false)),
            ("{\"a\": [1]}", "object", json!({"a": [1]})),
            ("{'a': None}", "dict", json!({"a": null})),
            ("[1,", "array", json!("[1,")),
            ("(1, 2)", "tuple", json!([1, 2])),
        ] {
            assert_eq!(by_schema(text, Some(&typed(name))), value, "{text} {name}");
        }
        assert_eq!(by_schema("12", None), json!("12"));
    }

    #[test]
    fn json_comes_first() {
        for (text, schema, value) in [
            ("12", None, json!(12)),
            ("beijing", None, json!("beijing")),
            ("12", Some("string"), json!("12")),
            ("\"12\"", Some("string"), json!("12")),
            ("{\"a\": 1}", Some("string"), json!("{\"a\": 1}")),
            ("\"1.5\"", Some("number"), json!(1.5)),
            ("['a']", Some("array"), json!(["a"])),
        ] {
            let schema = schema.map(typed);
            assert_eq!(json_first(text, schema.as_ref()), value, "{text}");
        }
    }

    #[test]
    fn arguments_are_no_deeper_than_can_be_read() {
        let list = typed("array");
        for convert in [by_schema, json_first, first_fitting] {
            let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
            let arguments = |depth| json!({"a": convert(&nested(depth), Some(&list))});
            assert_eq!(arguments(127)["a"], nested(127));
            let deepest = arguments(126);
            assert!(deepest["a"].is_array());
            assert_eq!(serde_json::from_str::<Value>(&deepest.to_string()).unwrap(), deepest);
        }
    }

    #[test]
    fn the_strictest_type_that_fits() {
        let either = json!({"anyOf": [{"type": "string"}, {"type": "integer"}]});
        assert_eq!(first_fitting("5", Some(&either)), json!(5));
        assert_eq!(first_fitting("five", Some(&either)), json!("five"));
        assert_eq!(first_fitting("none", None), json!(null));
        assert_eq!(first_fitting("5", None), json!("5"));
        assert_eq!(first_fitting("yes", Some(&typed("boolean"))), json!(true));
        assert_eq!(first_fitting("[1]", Some(&typed("array"))), json!([1]));
        assert_eq!(first_fitting("1.5", Some(&typed("integer"))), json!(1.5));
    }
}
