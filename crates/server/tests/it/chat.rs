//! `/v1/chat/completions`.

use serde_json::json;
use server::{AppState, SamplingDefaults};
use tokenizer::ChatTemplate;
use types::FinishReason;

use crate::support::{Answer, FakeEngine, Server, config, tokenizer};

const PATH: &str = "/v1/chat/completions";

fn hello() -> serde_json::Value {
    json!([{"role": "user", "content": "Hi"}])
}

#[tokio::test]
async fn one_answer() {
    let server = Server::answering("Hello!");
    let answer = server.post(PATH, json!({"messages": hello(), "rid": "chat"})).await;
    assert_eq!(answer.status, 200);
    insta::assert_snapshot!(answer.redacted_json());
    let req = server.engine.next_req().await;
    let prompt = tokenizer().decode(&req.input_ids, false);
    assert_eq!(prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(req.input_ids[0], 258);
    assert_eq!(req.sampling_params.max_new_tokens, None);
}

#[tokio::test]
async fn a_stream_with_usage() {
    let server = Server::answering("né");
    let body = json!({"model": "m", "messages": hello(), "rid": "chat", "stream": true,
                      "stream_options": {"include_usage": true}});
    insta::assert_snapshot!(server.post(PATH, body).await.transcript());
}

#[tokio::test]
async fn usage_in_every_chunk() {
    let server = Server::answering("ab");
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = json!({"messages": hello(), "stream": true, "stream_options": options});
    let events = server.post(PATH, body).await.events();
    let counts: Vec<_> = events.iter().map(|e| &e["usage"]["completion_tokens"]).collect();
    assert_eq!(counts, [1, 1, 2, 3, 3]);
    // In all but the last, which `include_usage` is for.
    let options = json!({"continuous_usage_stats": true});
    let body = json!({"messages": hello(), "stream": true, "stream_options": options});
    let events = server.post(PATH, body).await.events();
    let counts: Vec<_> = events.iter().map(|e| &e["usage"]["completion_tokens"]).collect();
    assert_eq!(counts, [1, 1, 2, 3]);
}

#[tokio::test]
async fn samples_stream_side_by_side() {
    let server = Server::answering("ab");
    let body = json!({"messages": hello(), "stream": true, "n": 3});
    let events = server.post(PATH, body).await.events();
    for index in 0..3 {
        let choices: Vec<_> =
            events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == index).collect();
        let roles = choices.iter().filter(|c| c["delta"]["role"] == "assistant");
        assert_eq!(roles.count(), 1);
        let text: String = choices.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
        assert_eq!(text, "ab");
        assert_eq!(choices.last().unwrap()["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn content_may_come_in_text_parts() {
    let server = Server::answering("x");
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    server.post(PATH, json!({"messages": [{"role": "user", "content": parts}]})).await;
    let req = server.engine.next_req().await;
    assert!(tokenizer().decode(&req.input_ids, true).contains("a b"));

    let parts = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
    let body = json!({"messages": [{"role": "user", "content": parts}]});
    let refused = server.post(PATH, body).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("image_url"), "{}", refused.text);
}

#[tokio::test]
async fn the_last_assistant_message_can_be_continued() {
    let server = Server::answering("x");
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]);
    let body = json!({"messages": messages, "continue_final_message": true});
    assert_eq!(server.post(PATH, body).await.status, 200);
    let req = server.engine.next_req().await;
    let prompt = tokenizer().decode(&req.input_ids, false);
    assert_eq!(prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell,");
}

#[tokio::test]
async fn turns_that_are_none_are_refused() {
    let server = Server::answering("x");
    let thought = json!([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]);
    let messages =
        json!([{"role": "System", "content": "Be."}, {"role": "assistant", "content": thought}]);
    assert_eq!(server.post(PATH, json!({"messages": messages})).await.status, 200);
    let prompt = tokenizer().decode(&server.engine.next_req().await.input_ids, false);
    assert!(prompt.starts_with("<|im_start|>system\nBe.<|im_end|>\n<|im_start|>assistant\nSo."));
    for (message, reason) in [
        (json!({"role": "alien", "content": "x"}), "'role' must be one of"),
        (json!({"role": "user", "content": thought}), "only valid in assistant messages"),
    ] {
        let answer = server.post(PATH, json!({"messages": [message]})).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains(reason), "{}", answer.text);
    }
}

#[tokio::test]
async fn token_ids_go_past_the_template() {
    let server = Server::answering("x");
    let body = json!({"messages": hello(), "input_ids": [97, 98]});
    assert_eq!(server.post(PATH, body).await.status, 200);
    assert_eq!(server.engine.next_req().await.input_ids, [97, 98]);
}

#[tokio::test]
async fn the_models_defaults_are_used() {
    let sampling_defaults =
        SamplingDefaults { temperature: Some(0.5), top_k: Some(20), ..SamplingDefaults::default() };
    let config = server::ServerConfig { sampling_defaults, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    server.post(PATH, json!({"messages": hello(), "top_k": 3})).await;
    let params = server.engine.next_req().await.sampling_params;
    assert_eq!((params.temperature, params.top_k, params.top_p), (0.5, 3, 1.0));
}

#[tokio::test]
async fn stop_strings_and_lengths_are_reported() {
    let server = Server::answering("one, two");
    let body = json!({"messages": hello(), "stop": [","]});
    let choice = server.post(PATH, body).await.json()["choices"][0].clone();
    assert_eq!(choice["message"]["content"], "one");
    assert_eq!((&choice["finish_reason"], &choice["matched_stop"]), (&json!("stop"), &json!(",")));

    let answer = Answer::ids(&[97], FinishReason::Length { length: 1 });
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let body = json!({"messages": hello(), "max_tokens": 1});
    let choice = server.post(PATH, body).await.json()["choices"][0].clone();
    assert_eq!(
        (&choice["finish_reason"], &choice["matched_stop"]),
        (&json!("length"), &json!(null))
    );
}

#[tokio::test]
async fn a_named_template_stops_where_it_says() {
    let engine = FakeEngine::start(|_| Answer::text("one[INST]two</s>"));
    let template =
        ChatTemplate::from_argument("llama-2".as_ref(), tokenizer().special_tokens().clone());
    let server = Server::with_template(engine, template.unwrap());
    let choice = server.post(PATH, json!({"messages": hello()})).await.json()["choices"][0].clone();
    assert_eq!(
        (&choice["message"]["content"], &choice["matched_stop"]),
        (&json!("one"), &json!("[INST]"))
    );
    let prompt = tokenizer().decode(&server.engine.next_req().await.input_ids, false);
    assert_eq!(prompt, "[INST] Hi [/INST]");
    // Not where the request is to go on, nor where it brings the prompt itself.
    for more in [
        json!({"messages": hello(), "ignore_eos": true}),
        json!({"messages": hello(), "input_ids": [97]}),
    ] {
        let choice = server.post(PATH, more).await.json()["choices"][0].clone();
        assert_eq!(choice["message"]["content"], "one[INST]two</s>");
    }
}

#[tokio::test]
async fn without_a_template_there_is_no_chat() {
    let engine = FakeEngine::start(|_| Answer::text("x"));
    let state = AppState::new(config(), engine.handle(), tokenizer(), None);
    let request = axum::http::Request::post(PATH)
        .header("content-type", "application/json")
        .body(axum::body::Body::from(json!({"messages": hello()}).to_string()))
        .unwrap();
    let response = tower::ServiceExt::oneshot(server::router(state), request).await.unwrap();
    assert_eq!(response.status(), 400);
}
