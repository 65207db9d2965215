//! The dialects of chat over a real engine.

use serde_json::{Value, json};

use e2e::shared;

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
