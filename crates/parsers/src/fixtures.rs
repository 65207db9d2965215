//! Outputs of models and what upstream makes of them, by `tools/oracle/parsers.py`.

use serde_json::Value;

/// Cases of one kind: `tool_call` or `reasoning`.
pub(crate) fn cases(kind: &str) -> Vec<Value> {
    let mut all = all();
    let Value::Array(cases) = all[kind].take() else { panic!("no {kind}") };
    cases
}

pub(crate) fn tools() -> Vec<Value> {
    all()["tools"].as_array().unwrap().clone()
}

fn all() -> Value {
    serde_json::from_str(include_str!("../testdata/outputs.json")).unwrap()
}

/// Every cut of `text` in two, and all its characters one by one.
pub(crate) fn cuts(text: &str) -> Vec<Vec<&str>> {
    let places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let mut cuts: Vec<Vec<&str>> = places.map(|at| vec![&text[..at], &text[at..]]).collect();
    let chars = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
    cuts.push(chars.collect());
    cuts
}
