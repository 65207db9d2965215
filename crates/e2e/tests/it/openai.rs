//! The OpenAI-style endpoints with a model that answers.

use serde_json::json;

use e2e::shared;

#[test]
fn chat_knows_the_capital_of_france() {
    let body = json!({
        "model": "default",
        "messages": [{ "role": "user", "content": "What is the capital of France?" }],
        "temperature": 0,
        "max_tokens": 24,
    });
    let response = shared().post("/v1/chat/completions", &body).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let answer = response.json();
    let choice = &answer["choices"][0];
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(choice["message"]["content"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(choice["finish_reason"], "stop");
    let usage = &answer["usage"];
    let count = |key: &str| usage[key].as_u64().unwrap();
    assert_eq!(count("prompt_tokens") + count("completion_tokens"), count("total_tokens"));
}

#[test]
fn chat_deltas_spell_the_whole_answer() {
    let server = shared();
    let mut body = json!({
        "model": "default",
        "messages": [
            { "role": "system", "content": "You like emoji." },
            { "role": "user", "content": "Say hello in five languages 👋" },
        ],
        "temperature": 0,
        "max_tokens": 40,
    });
    let whole = server.post("/v1/chat/completions", &body).unwrap().json();
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let chunks = server.stream("/v1/chat/completions", &body).unwrap().collect_data().unwrap();

    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let deltas = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(deltas.collect::<String>(), whole["choices"][0]["message"]["content"]);
    let reasons: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons, [whole["choices"][0]["finish_reason"].as_str().unwrap()]);
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    for key in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(last["usage"][key], whole["usage"][key], "{key}");
    }
}

#[test]
fn a_completion_stops_before_its_stop_string() {
    let server = shared();
    let mut body = json!({
        "model": "default", "prompt": "1, 2, 3, 4, 5, 6,", "temperature": 0, "max_tokens": 24,
    });
    let free = server.post("/v1/completions", &body).unwrap().json();
    let text = free["choices"][0]["text"].as_str().unwrap();
    assert!(text.contains("9,"), "{text:?}");
    body["stop"] = json!(["9,"]);
    let stopped = server.post("/v1/completions", &body).unwrap().json();
    let choice = &stopped["choices"][0];
    assert_eq!(choice["text"], text.split("9,").next().unwrap());
    assert_eq!((&choice["finish_reason"], &choice["matched_stop"]), (&json!("stop"), &json!("9,")));

    body["stream"] = json!(true);
    let chunks = server.stream("/v1/completions", &body).unwrap().collect_data().unwrap();
    let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
    assert_eq!(pieces.collect::<String>(), choice["text"].as_str().unwrap());
}

#[test]
fn the_model_is_listed() {
    let models = shared().get("/v1/models").unwrap().json();
    assert_eq!(models["object"], "list");
    let card = &models["data"][0];
    assert_eq!((&card["object"], &card["owned_by"]), (&json!("model"), &json!("sglang")));
    assert_eq!(card["max_model_len"], 8192);
}

#[test]
fn tokenize_and_detokenize_are_inverse() {
    let server = shared();
    let text = "Grüße, 世界! 👩‍🚀 x = 3";
    let body = json!({ "model": "default", "prompt": text, "add_special_tokens": false });
    let tokens = server.post("/tokenize", &body).unwrap().json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let back = server
        .post("/detokenize", &json!({ "model": "default", "tokens": tokens["tokens"] }))
        .unwrap()
        .json();
    assert_eq!(back["text"], text);
}
