//! Completions of a small model that cannot but follow a grammar.

use serde_json::{Value, json};

use e2e::shared;

/// Completions at a temperature at which the model writes nonsense otherwise.
fn generate(params: Value) -> Vec<Value> {
    let mut sampling =
        json!({"temperature": 2.0, "max_new_tokens": 120, "n": 3, "sampling_seed": 7});
    sampling.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    let body = json!({"text": "A person:", "sampling_params": sampling});
    let response = shared().post("/generate", &body).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.json().as_array().unwrap().clone()
}

#[test]
fn hot_completions_are_what_a_schema_describes() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["cat", "dog"]},
        },
        "required": ["name", "age", "kind"], "additionalProperties": false,
    });
    for answer in generate(json!({"json_schema": schema.to_string()})) {
        assert_eq!(answer["meta_info"]["finish_reason"]["type"], "stop", "{answer}");
        let value: Value = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["name", "age", "kind"], "{value}");
        assert!(value["name"].as_str().unwrap().chars().count() <= 8, "{value}");
        assert!((0..=120).contains(&value["age"].as_i64().unwrap()), "{value}");
        assert!(value["kind"] == "cat" || value["kind"] == "dog", "{value}");
    }
}

#[test]
fn a_regular_expression_and_a_chat_in_json() {
    for answer in generate(json!({"regex": "[0-9]{3}-[0-9]{4}", "min_new_tokens": 20})) {
        let text = answer["text"].as_str().unwrap();
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        assert_eq!((text.len(), digits, &text[3..4]), (8, 7, "-"), "{text}");
    }
    let body = json!({
        "messages": [{"role": "user", "content": "Describe Paris as JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": {
            "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"], "additionalProperties": false}}},
        "temperature": 0, "max_tokens": 60,
    });
    let answer = shared().post("/v1/chat/completions", &body).unwrap().json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(content).unwrap();
    assert!(value["city"].is_string(), "{answer}");
}
