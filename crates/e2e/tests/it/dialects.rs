//! The dialects of chat over a real engine.

use serde_json::{Value, json};

use e2e::shared;

/// An answer that a schema describes, as each dialect asks for it.
#[test]
fn every_dialect_gets_what_a_schema_describes() {
    let server = shared();
    let messages = json!([{ "role": "user", "content": "Describe Paris as JSON." }]);
    let schema = json!({
        "type": "object", "properties": { "city": { "type": "string", "maxLength": 12 } },
        "required": ["city"], "additionalProperties": false,
    });
    let format = json!({ "type": "json_schema", "schema": schema });
    let named = json!({ "type": "json_schema", "name": "city", "schema": schema });
    let options = json!({ "temperature": 0, "num_predict": 60 });
    let ask = |path: &str, body: Value, pointer: &str| {
        let answer = server.post(path, &body).unwrap().json();
        let text = answer.pointer(pointer).and_then(Value::as_str);
        let text = text.unwrap_or_else(|| panic!("{path}: {answer}"));
        serde_json::from_str::<Value>(text).unwrap_or_else(|_| panic!("{path}: {text}"))
    };
    let anthropic = json!({ "model": "m", "messages": messages, "temperature": 0, "max_tokens": 60,
                            "output_config": { "format": format } });
    let answer = ask("/v1/messages", anthropic, "/content/0/text");
    assert!(answer["city"].is_string(), "{answer}");
    let ollama = json!({ "model": "m", "messages": messages, "format": schema, "stream": false,
                         "options": options });
    assert_eq!(ask("/api/chat", ollama, "/message/content"), answer);
    let ollama = json!({ "model": "m", "prompt": messages[0]["content"], "format": schema,
                         "stream": false, "options": options });
    assert_eq!(ask("/api/generate", ollama, "/response"), answer);
    let responses = json!({ "input": messages, "text": { "format": named }, "temperature": 0,
                            "max_output_tokens": 60 });
    assert_eq!(ask("/v1/responses", responses, "/output/0/content/0/text"), answer);
}

/// The model's answer to one question, greedily, as each dialect asks for it.
#[test]
fn every_dialect_gets_the_same_answer() {
    let server = shared();
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "What is the capital of France?" },
    ]);
    let ask = |path: &str, body: Value| -> Value {
        let response = server.post(path, &body).unwrap();
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    };
    let chat = ask(
        "/v1/chat/completions",
        json!({ "model": "m", "messages": messages, "temperature": 0, "max_tokens": 24 }),
    );
    let expected = chat["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(expected.contains("Paris"), "{chat}");

    let question = json!([messages[1]]);
    let anthropic = ask(
        "/v1/messages",
        json!({ "model": "m", "system": "Be brief.", "messages": question, "temperature": 0,
                "max_tokens": 24 }),
    );
    assert_eq!(anthropic["content"], json!([{ "type": "text", "text": expected }]));
    let usage = &anthropic["usage"];
    let of_prompt = ["input_tokens", "cache_read_input_tokens"].map(|key| usage[key].as_u64());
    assert_eq!(
        of_prompt[0].zip(of_prompt[1]).map(|(a, b)| a + b),
        chat["usage"]["prompt_tokens"].as_u64()
    );

    let options = json!({ "temperature": 0, "num_predict": 24 });
    let ollama = ask(
        "/api/chat",
        json!({ "model": "m", "messages": messages, "options": options, "stream": false }),
    );
    assert_eq!(ollama["message"]["content"], expected);
    assert_eq!(ollama["eval_count"], chat["usage"]["completion_tokens"]);

    let responses = ask(
        "/v1/responses",
        json!({ "model": "m", "instructions": "Be brief.", "input": question, "temperature": 0,
                "max_output_tokens": 24 }),
    );
    assert_eq!(responses["output"][0]["content"][0]["text"], expected);
    assert_eq!(responses["usage"]["total_tokens"], chat["usage"]["total_tokens"]);
}
