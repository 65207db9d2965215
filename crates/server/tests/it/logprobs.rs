//! Log-probabilities on every route that tells them.

use serde_json::{Value, json};

use crate::support::{Server, bytes_as_ids};

/// Of a token, as the engine of these tests has it.
fn of(text: &str) -> f64 {
    -f64::from(text.as_bytes()[0]) / 8.0
}

fn triple(text: &str) -> Value {
    json!([of(text), bytes_as_ids(text)[0], null])
}

#[tokio::test]
async fn of_the_completion() {
    let server = Server::answering("Hi");
    let body = json!({"text": "ab", "return_logprob": true});
    let meta = server.post("/generate", body).await.json()["meta_info"].clone();
    assert_eq!(
        meta["output_token_logprobs"],
        json!([triple("H"), triple("i"), [-32.125, 257, null]])
    );
    assert_eq!(meta["output_token_logprobs_length"], 3);
    assert_eq!(meta["input_token_logprobs"], json!([]));
    assert!(
        meta.get("output_top_logprobs").is_none()
            && meta.get("output_token_ids_logprobs").is_none()
    );
    let params = server.engine.next_req().await.logprobs.unwrap();
    assert_eq!((params.start_len, params.top_logprobs_num, params.token_ids.len()), (None, 0, 0));

    let meta = server.post("/generate", json!({"text": "ab"})).await.json()["meta_info"].clone();
    assert!(meta.get("output_token_logprobs").is_none());
    assert_eq!(server.engine.next_req().await.logprobs, None);
}

#[tokio::test]
async fn of_the_prompt_with_text_and_other_tokens() {
    let server = Server::answering("H");
    let body = json!({"text": "abc", "return_logprob": true, "logprob_start_len": 1,
                      "top_logprobs_num": 2, "token_ids_logprob": [72, 8],
                      "return_text_in_logprobs": true});
    let meta = server.post("/generate", body).await.json()["meta_info"].clone();
    assert_eq!(meta["input_token_logprobs"], json!([[null, 98, "b"], [of("c"), 99, "c"]]));
    let top = json!([[-0.5, 65, "A"], [-1.0, 66, "B"]]);
    assert_eq!(meta["input_top_logprobs"], json!([null, top]));
    assert_eq!(meta["output_top_logprobs"], json!([top, top]));
    let named = json!([[-9.0, 72, "H"], [-1.0, 8, "\u{8}"]]);
    assert_eq!(meta["input_token_ids_logprobs"], json!([null, named]));
    assert_eq!(meta["output_token_ids_logprobs"], json!([named, named]));
}

#[tokio::test]
async fn a_start_at_the_end_of_the_prompt_asks_for_none_of_it() {
    let server = Server::answering("x");
    let body = json!({"text": "ab", "return_logprob": true, "logprob_start_len": 2,
                      "top_logprobs_num": 1, "token_ids_logprob": [72]});
    let meta = server.post("/generate", body).await.json()["meta_info"].clone();
    for name in ["input_token_logprobs", "input_top_logprobs", "input_token_ids_logprobs"] {
        assert_eq!(meta[name], json!([]), "{name}");
    }
    assert_eq!(meta["output_token_logprobs"][0], triple("x"));
    assert_eq!(server.engine.next_req().await.logprobs.unwrap().start_len, None);
}

#[tokio::test]
async fn each_prompt_may_ask_for_its_own() {
    let server = Server::answering("x");
    let body = json!({"text": ["ab", "cde"], "return_logprob": [false, true],
                      "logprob_start_len": [-1, 0], "top_logprobs_num": [0, 1]});
    let answers = server.post("/generate", body).await.json();
    assert!(answers[0]["meta_info"].get("output_token_logprobs").is_none());
    let meta = &answers[1]["meta_info"];
    assert_eq!(meta["input_token_logprobs"], json!([[null, 99, null], triple("d"), triple("e")]));
    assert_eq!(meta["output_top_logprobs"][0], json!([[-0.5, 65, null]]));
}

#[tokio::test]
async fn a_stream_tells_them_as_it_tells_text() {
    let server = Server::answering("Hi");
    let body =
        json!({"text": "ab", "return_logprob": true, "stream": true, "logprob_start_len": 0});
    let events = server.post("/generate", body).await.events();
    let lengths: Vec<_> = events
        .iter()
        .map(|e| e["meta_info"]["output_token_logprobs"].as_array().unwrap().len())
        .collect();
    assert_eq!(lengths, [1, 2, 3]);
    assert_eq!(
        events[2]["meta_info"]["input_token_logprobs"],
        json!([[null, 97, null], triple("b")])
    );
}

#[tokio::test]
async fn a_stop_string_ends_them_too() {
    let server = Server::answering("one.two");
    let body = json!({"text": "ab", "return_logprob": true, "sampling_params": {"stop": "."}});
    let answer = server.post("/generate", body).await.json();
    assert_eq!(answer["text"], "one");
    let said = answer["meta_info"]["output_token_logprobs"].as_array().unwrap();
    assert_eq!(said.len(), answer["output_ids"].as_array().unwrap().len());
}

fn body_of(prompt: &str) -> Value {
    json!({"prompt": prompt, "logprobs": 1})
}

#[tokio::test]
async fn of_completions() {
    let server = Server::answering("Hi");
    let body = json!({"prompt": "ab", "logprobs": 1, "echo": true});
    let choice = server.post("/v1/completions", body.clone()).await.json()["choices"][0].clone();
    let a = json!({"A": -0.5});
    assert_eq!(choice["text"], "abHi");
    let tokens = choice["logprobs"]["tokens"].clone();
    assert_eq!(tokens.as_array().unwrap()[..4], ["a", "b", "H", "i"].map(Value::from));
    assert_eq!(
        choice["logprobs"]["token_logprobs"],
        json!([null, of("b"), of("H"), of("i"), -32.125])
    );
    assert_eq!(choice["logprobs"]["top_logprobs"], json!([null, a, a, a, a]));
    assert_eq!(choice["logprobs"]["text_offset"], json!([-1, -1, -1, -1, -1]));

    let mut body = body;
    body["stream"] = json!(true);
    let events = server.post("/v1/completions", body).await.events();
    let streamed: Vec<_> = events
        .iter()
        .flat_map(|e| e["choices"][0]["logprobs"]["tokens"].as_array().unwrap().clone())
        .collect();
    assert_eq!(Value::from(streamed), tokens);

    // Parts of a character, each as the one that has its byte's number.
    let server = Server::answering("é");
    let choice = server.post("/v1/completions", body_of("ab")).await.json()["choices"][0].clone();
    assert_eq!(choice["logprobs"]["tokens"], json!(["\u{c3}", "\u{a9}", "</s>"]));
    let server = Server::answering("Hi");

    let body = json!({"prompt": "ab", "logprobs": 0});
    let choice = server.post("/v1/completions", body).await.json()["choices"][0].clone();
    assert_eq!(choice["logprobs"]["token_logprobs"], json!([of("H"), of("i"), -32.125]));
    let plain = server.post("/v1/completions", json!({"prompt": "ab"})).await.json();
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn of_chat() {
    let server = Server::answering("né");
    let messages = json!([{"role": "user", "content": "x"}]);
    let body = json!({"messages": messages, "logprobs": true, "top_logprobs": 1});
    let path = "/v1/chat/completions";
    let choice = server.post(path, body.clone()).await.json()["choices"][0].clone();
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(
        content[0],
        json!({"token": "n", "bytes": [110], "logprob": of("n"),
               "top_logprobs": [{"token": "A", "bytes": [65], "logprob": -0.5}]})
    );
    // Half a character has no text of its own, but a byte.
    assert_eq!(content[1]["token"], "\u{fffd}");
    assert_eq!((&content[1]["bytes"], &content[2]["bytes"]), (&json!([0xC3]), &json!([0xA9])));
    assert_eq!(content.len(), 4);

    let mut body = body;
    body["stream"] = json!(true);
    let events = server.post(path, body).await.events();
    let streamed: Vec<_> = events
        .iter()
        .filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(&streamed, content);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let server = Server::answering("x");
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body, name) in [
        ("/generate", json!({"text": "ab", "logprob_start_len": 3}), "logprob_start_len"),
        ("/generate", json!({"text": "ab", "logprob_start_len": -2}), "logprob_start_len"),
        ("/generate", json!({"text": "ab", "top_logprobs_num": -1}), "top_logprobs_num"),
        ("/generate", json!({"text": "ab", "top_logprobs_num": 1_000_000}), "top_logprobs_num"),
        ("/generate", json!({"text": "ab", "top_logprobs_num": [1, 2]}), "top_logprobs_num"),
        ("/generate", json!({"text": "ab", "token_ids_logprob": [260]}), "260"),
        ("/generate", json!({"text": "ab", "token_ids_logprob": "x"}), "token ids"),
        ("/v1/completions", json!({"prompt": "ab", "logprobs": -1}), "logprobs"),
        ("/v1/chat/completions", json!({"messages": messages, "top_logprobs": 2}), "top_logprobs"),
    ] {
        let mut body = body;
        if path == "/generate" {
            body["return_logprob"] = json!(true);
        }
        let answer = server.post(path, body.clone()).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert!(answer.text.contains(name), "{path} {body}: {}", answer.text);
    }
}

#[tokio::test]
async fn penalties_and_bias_reach_the_engine() {
    let server = Server::answering("x");
    let fields = json!({"frequency_penalty": 0.5, "presence_penalty": -1.0,
                        "repetition_penalty": 1.5, "logit_bias": {"7": -2.5, "3": 4}});
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, mut body) in [
        ("/generate", json!({"text": "ab", "sampling_params": fields})),
        ("/v1/completions", json!({"prompt": "ab"})),
        ("/v1/chat/completions", json!({"messages": messages})),
    ] {
        if path != "/generate" {
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        }
        assert_eq!(server.post(path, body).await.status, 200, "{path}");
        let params = server.engine.next_req().await.sampling_params;
        let penalties = types::Penalties { frequency: 0.5, presence: -1.0, repetition: 1.5 };
        assert_eq!(params.penalties, penalties, "{path}");
        assert_eq!(params.logit_bias[..], [(3, 4.0), (7, -2.5)], "{path}");
    }
}
