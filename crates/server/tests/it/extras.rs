//! What answers carry beside the text: tokens, `meta_info`, `sglext`.

use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::support::{Answered, Server};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn with(body: Value, more: Value) -> Value {
    let mut body = body;
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn chat(more: Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": "x"}], "input_ids": [97, 98]}), more)
}

#[tokio::test]
async fn tokens_of_completions() {
    let server = Server::answering("Hi");
    let body = json!({"prompt": ["ab", "c"], "return_token_ids": true});
    let answer = server.post(COMPLETIONS, body).await.json();
    let choices = [(&answer["choices"][0], json!([97, 98])), (&answer["choices"][1], json!([99]))];
    for (choice, prompt) in choices {
        assert_eq!(choice["token_ids"], json!([72, 105, 257]));
        assert_eq!(choice["prompt_token_ids"], prompt);
    }
    let body = json!({"prompt": "ab", "return_token_ids": true, "stream": true});
    let events = server.post(COMPLETIONS, body).await.events();
    let choices: Vec<_> = events.iter().map(|event| &event["choices"][0]).collect();
    let prompts: Vec<_> = choices.iter().map(|choice| choice.get("prompt_token_ids")).collect();
    assert_eq!(prompts[0], Some(&json!([97, 98])));
    assert!(prompts[1..].iter().all(Option::is_none), "{prompts:?}");
    let tokens: Vec<_> =
        choices.iter().flat_map(|choice| choice["token_ids"].as_array().unwrap()).collect();
    assert_eq!(tokens, [72, 105, 257]);
    let plain = server.post(COMPLETIONS, json!({"prompt": "ab"})).await.json();
    assert_eq!(plain["choices"][0].get("token_ids"), None);
    assert_eq!(plain.get("sglext"), None);
}

#[tokio::test]
async fn tokens_and_meta_info_of_chats() {
    let server = Server::answering("Hi");
    let answer = server.post(CHAT, chat(json!({"return_prompt_token_ids": true}))).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["prompt_token_ids"], json!([97, 98]));
    assert_eq!((choice.get("response_token_ids"), choice.get("meta_info")), (None, None));
    let wanted = json!({"return_token_ids": true, "return_meta_info": true, "logprobs": true});
    let answer = server.post(CHAT, chat(wanted)).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["prompt_token_ids"], json!([97, 98]));
    assert_eq!(choice["response_token_ids"], json!([72, 105, 257]));
    let meta = &choice["meta_info"];
    assert_eq!(meta["id"], answer["id"]);
    assert_eq!((&meta["prompt_tokens"], &meta["completion_tokens"]), (&json!(2), &json!(3)));
    assert_eq!(meta["cached_tokens_details"], json!({"device": 1, "host": 0}));
    let said = &meta["output_token_logprobs"][0];
    assert_eq!((&said[1], &said[2]), (&json!(72), &json!("H")));
    for name in ["return_prompt_token_ids", "return_token_ids", "return_meta_info"] {
        let answer = server.post(CHAT, chat(json!({name: true, "stream": true}))).await;
        assert_eq!(answer.status, 400);
        let message = format!("{name} is not supported with streaming.");
        assert!(answer.text.contains(&message), "{}", answer.text);
    }
}

#[tokio::test]
async fn sglext_has_what_was_asked_for() {
    let server = Server::answering("Hi");
    let details = json!({"return_cached_tokens_details": true});
    let cached = json!({"cached_tokens_details": {"device": 1, "host": 0}});
    let answer = server.post(CHAT, chat(details.clone())).await.json();
    assert_eq!(answer["sglext"], cached);
    let body = with(json!({"prompt": "ab"}), details);
    assert_eq!(server.post(COMPLETIONS, body.clone()).await.json()["sglext"], cached);
    let events =
        server.post(COMPLETIONS, with(body.clone(), json!({"stream": true}))).await.events();
    let last = events.last().unwrap();
    assert_eq!((&last["sglext"], &last["choices"]), (&cached, &json!([])));
    // Nothing was cached of a prompt of one token.
    let answer = server.post(COMPLETIONS, with(body, json!({"prompt": "a"}))).await.json();
    assert_eq!(answer.get("sglext"), None);

    let ids =
        json!({"return_input_ids_in_sglext": true, "return_output_ids_in_sglext": true, "n": 2});
    let wanted = json!({"input_ids": [97, 98], "output_ids": [[72, 105, 257], [72, 105, 257]]});
    let answer = server.post(CHAT, chat(ids.clone())).await.json();
    assert_eq!(answer["sglext"], wanted);
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = server.post(CHAT, with(chat(ids), options)).await.events();
    let [.., sglext, usage] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&sglext["sglext"], usage.get("sglext")), (&wanted, None));
    assert_eq!(usage["usage"]["completion_tokens"], 6);
}

async fn post_with_headers(server: &Server, headers: &[&str], body: Value) -> Answered {
    let request = Request::post(CHAT).header(header::CONTENT_TYPE, "application/json");
    let request = headers.iter().fold(request, |request, name| request.header(*name, "1"));
    server.send(request.body(body.to_string().into()).unwrap()).await
}

#[tokio::test]
async fn headers_ask_for_tokens_too() {
    let server = Server::answering("Hi");
    let headers = ["x-sglext-return-input-ids", "x-sglext-return-output-ids"];
    let answer = post_with_headers(&server, &headers, chat(json!({}))).await.json();
    let wanted = json!({"input_ids": [97, 98], "output_ids": [[72, 105, 257]]});
    assert_eq!(answer["sglext"], wanted);
    let headers = [headers[0], headers[1], "x-sglext-ids-framed"];
    let body = chat(json!({"stream": true, "return_cached_tokens_details": true}));
    let text = post_with_headers(&server, &headers, body).await.text;
    let frames: Vec<_> = text.split_terminator("\n\n").collect();
    let [.., details, ids, "data: [DONE]"] = frames.as_slice() else { panic!("{text}") };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let details = json(details.strip_prefix("data: ").unwrap());
    assert_eq!(details["sglext"], json!({"cached_tokens_details": {"device": 1, "host": 0}}));
    let ids = json(ids.strip_prefix("event: sglext_ids\ndata: ").unwrap());
    assert_eq!((&ids["sglext"], &ids["choices"]), (&wanted, &json!([])));
}
