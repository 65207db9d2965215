//! JSON to template values. Objects keep their key order: it shows where a
//! template prints them.

use minijinja::Value as Jinja;
use serde_json::Value;

pub(super) fn from_json(value: &Value) -> Jinja {
    match value {
        Value::Null => Jinja::from(()),
        Value::Bool(flag) => Jinja::from(*flag),
        Value::Number(number) => from_number(number),
        Value::String(text) => Jinja::from(text.as_str()),
        Value::Array(items) => from_list(items),
        Value::Object(entries) => {
            Jinja::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), from_json(value))))
        }
    }
}

pub(super) fn from_list(items: &[Value]) -> Jinja {
    Jinja::from(items.iter().map(from_json).collect::<Vec<_>>())
}

fn from_number(number: &serde_json::Number) -> Jinja {
    let integer = number.as_i64().map(Jinja::from).or_else(|| number.as_u64().map(Jinja::from));
    integer.unwrap_or_else(|| Jinja::from(number.as_f64().unwrap_or(f64::NAN)))
}
