//! `/generate`.

use serde_json::{Value, json};
use types::{FinishReason, MatchedStop, SamplingParams};

use crate::support::{Answer, FakeEngine, Server, bytes_as_ids, config};

#[tokio::test]
async fn one_answer() {
    let server = Server::answering("Paris");
    let answer = server.post("/generate", json!({"text": "Capital?", "rid": "r"})).await;
    assert_eq!(answer.status, 200);
    insta::assert_snapshot!(answer.redacted_json());
    let req = server.engine.next_req().await;
    assert_eq!(req.rid.as_str(), "r");
    assert_eq!(req.input_ids, bytes_as_ids("Capital?"));
    assert_eq!(req.sampling_params, SamplingParams::default());
    assert_eq!(req.eos_token_ids, [257, 259]);
}

#[tokio::test]
async fn a_priority_reaches_the_scheduler() {
    let server = Server::answering("x");
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (route, mut body) in [
        ("/generate", json!({"text": "a"})),
        ("/v1/completions", json!({"model": "m", "prompt": "a"})),
        ("/v1/chat/completions", json!({"model": "m", "messages": messages})),
        ("/v1/responses", json!({"model": "m", "input": "a"})),
    ] {
        assert_eq!(server.post(route, body.clone()).await.status, 200, "{route}");
        assert_eq!(server.engine.next_req().await.priority, None, "{route}");
        body["priority"] = json!(-7);
        assert_eq!(server.post(route, body.clone()).await.status, 200, "{route}");
        assert_eq!(server.engine.next_req().await.priority, Some(-7), "{route}");
        body["priority"] = json!("high");
        assert_eq!(server.post(route, body).await.status, 400, "{route}");
    }
}

#[tokio::test]
async fn a_stream_is_cumulative() {
    let server = Server::answering("né");
    let body = json!({"input_ids": [65, 66], "stream": true, "rid": "r"});
    insta::assert_snapshot!(server.post("/generate", body).await.transcript());
}

#[tokio::test]
async fn an_incremental_stream_has_only_what_is_new() {
    let engine = FakeEngine::start(|_| Answer::text("abcd"));
    let config =
        server::ServerConfig { incremental_streaming_output: true, stream_interval: 2, ..config() };
    let server = Server::with_config(engine, config);
    let body = json!({"input_ids": [65], "stream": true});
    let events = server.post("/generate", body.clone()).await.events();
    let news: Vec<_> =
        events.iter().map(|e| (e["text"].clone(), e["output_ids"].clone())).collect();
    assert_eq!(
        news,
        [
            (json!("a"), json!([97])),
            (json!("bc"), json!([98, 99])),
            (json!("d"), json!([100, 257])),
        ]
    );
    // Not a stream: everything, whatever the option says.
    let whole = server.post("/generate", json!({"input_ids": [65]})).await.json();
    assert_eq!(whole["text"], "abcd");
}

#[tokio::test]
async fn a_request_may_set_its_own_stream_interval() {
    let server = Server::answering("abcdefgh");
    let params = json!({"stream_interval": 3});
    let body = json!({"text": "x", "stream": true, "sampling_params": params});
    let events = server.post("/generate", body).await.events();
    let texts: Vec<_> = events.iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["a", "abcd", "abcdefg", "abcdefgh"]);
}

/// The engine answers a prompt with the prompt and the seed.
fn echo_engine() -> FakeEngine {
    FakeEngine::start(|req| {
        let prompt: Vec<u8> = req.input_ids.iter().map(|&id| id as u8).collect();
        let seed = req.sampling_params.sampling_seed.map_or(String::new(), |s| s.to_string());
        Answer::text(&format!("{}{seed}", String::from_utf8(prompt).unwrap()))
    })
}

fn texts(answer: &Value) -> Vec<&str> {
    answer.as_array().unwrap().iter().map(|a| a["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_batch_answers_in_order_and_n_samples_follow_their_prompt() {
    let server = Server::new(echo_engine());
    let prompts = ["aaaaaaaaaaaa", "b", "cccc"];
    let answer = server.post("/generate", json!({"text": prompts})).await.json();
    assert_eq!(texts(&answer), prompts);

    let params = json!({"n": 2, "sampling_seed": 7});
    let body = json!({"text": ["a", "b"], "rid": ["x", "y"], "sampling_params": params});
    let answer = server.post("/generate", body).await.json();
    assert_eq!(texts(&answer), ["a7", "a8", "b7", "b8"]);
    let ids: Vec<_> = answer.as_array().unwrap().iter().map(|a| &a["meta_info"]["id"]).collect();
    assert_eq!(ids, ["x_0", "x_1", "y_0", "y_1"]);

    let params = json!([{"sampling_seed": 1}, {"sampling_seed": 2}]);
    let body = json!({"input_ids": [[97], [98]], "rid": "z", "sampling_params": params});
    let answer = server.post("/generate", body).await.json();
    assert_eq!(texts(&answer), ["a1", "b2"]);
    assert_eq!(answer[1]["meta_info"]["id"], "z_1");
}

#[tokio::test]
async fn a_list_of_one_is_a_list() {
    let server = Server::answering("x");
    assert!(server.post("/generate", json!({"text": ["a"]})).await.json().is_array());
    assert!(server.post("/generate", json!({"input_ids": [[1]]})).await.json().is_array());
    let n = json!({"text": "a", "sampling_params": {"n": 2}});
    assert_eq!(texts(&server.post("/generate", n).await.json()).len(), 2);
    assert!(server.post("/generate", json!({"text": "a"})).await.json().is_object());
}

#[tokio::test]
async fn a_batch_larger_than_the_inbox_runs() {
    let server = Server::new(FakeEngine::with_inbox(2, |_| Answer::text("x")));
    let answer = server.post("/generate", json!({"text": vec!["a"; 100]})).await;
    assert_eq!(texts(&answer.json()).len(), 100);
}

#[tokio::test]
async fn a_streamed_batch_names_the_sequence() {
    let server = Server::new(echo_engine());
    let body = json!({"text": ["aa", "bbb"], "stream": true});
    let events = server.post("/generate", body).await.events();
    for (index, text) in [(0, "aa"), (1, "bbb")] {
        let of_index: Vec<_> = events.iter().filter(|e| e["index"] == index).collect();
        assert_eq!(of_index.last().unwrap()["text"], text);
        assert_eq!(of_index.len(), text.len() + 1);
        let reasons: Vec<_> = of_index.iter().map(|e| &e["meta_info"]["finish_reason"]).collect();
        assert!(reasons[..reasons.len() - 1].iter().all(|reason| reason.is_null()));
        assert_eq!(reasons.last().unwrap()["type"], "stop");
    }
}

/// Every way to cut a text of many scripts into events gives the same text,
/// and no step of it ends inside a character.
#[tokio::test]
async fn characters_are_never_split() {
    const TEXT: &str = "naïve 東京 🦀👩‍🚀 e\u{301} \u{FFFD} ש";
    for size in [1, 2, 3, 5, 7, 64] {
        let mut answer = Answer::text(TEXT);
        answer.events = answer.events.concat().chunks(size).map(<[_]>::to_vec).collect();
        let server = Server::new(FakeEngine::start(move |_| answer.clone()));
        let events = server.post("/generate", json!({"text": "x", "stream": true})).await.events();
        for event in &events {
            let text = event["text"].as_str().unwrap();
            assert!(TEXT.starts_with(text), "{size}: {text:?}");
        }
        assert_eq!(events.last().unwrap()["text"], TEXT);
    }
}

#[tokio::test]
async fn an_unfinished_character_at_the_end_is_replaced() {
    let finish = FinishReason::Length { length: 2 };
    let answer = Answer::ids(&[97, 0xE6], finish);
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let answer = server.post("/generate", json!({"text": "x"})).await.json();
    assert_eq!(answer["text"], "a\u{FFFD}");
    assert_eq!(answer["meta_info"]["finish_reason"], json!({"type": "length", "length": 2}));
}

#[tokio::test]
async fn a_stop_string_ends_text_tokens_and_engine() {
    for (no_stop_trim, text) in [(false, "Hello w"), (true, "Hello wor")] {
        let server = Server::new(FakeEngine::start(|_| Answer::endless("Hello world, hello")));
        let params = json!({"stop": ["zzz", "or"], "no_stop_trim": no_stop_trim});
        let body = json!({"text": "x", "rid": "r", "sampling_params": params});
        let answer = server.post("/generate", body).await.json();
        assert_eq!(answer["text"], text);
        assert_eq!(answer["output_ids"], json!(bytes_as_ids("Hello wor")));
        assert_eq!(answer["meta_info"]["completion_tokens"], 9);
        let reason = json!({"type": "stop", "matched": "or"});
        assert_eq!(answer["meta_info"]["finish_reason"], reason);
    }
}

#[tokio::test]
async fn a_pattern_ends_text_tokens_and_engine() {
    let server = Server::new(FakeEngine::start(|_| Answer::endless("Hello w12 world, hello")));
    // `12` is held back for the stop string until the pattern decides.
    for stop_regex in [json!("[0-9]{2}"), json!(["zzz", "[0-9]{2}"])] {
        let params = json!({"stop_regex": stop_regex, "stop": "12 wool"});
        let answer =
            server.post("/generate", json!({"text": "x", "sampling_params": params})).await;
        let answer = answer.json();
        assert_eq!(answer["text"], "Hello w12");
        assert_eq!(answer["output_ids"], json!(bytes_as_ids("Hello w12")));
        let reason = json!({"type": "stop", "matched": "[0-9]{2}"});
        assert_eq!(answer["meta_info"]["finish_reason"], reason);
        assert_eq!(answer["meta_info"]["completion_tokens"], 9);
    }
    let body = json!({"prompt": "x", "stop_regex": "l+o"});
    let choice = &server.post("/v1/completions", body).await.json()["choices"][0];
    assert_eq!((&choice["text"], &choice["matched_stop"]), (&json!("Hello"), &json!("l+o")));
    let messages = json!([{"role": "user", "content": "x"}]);
    let body = json!({"messages": messages, "stop_regex": "l+o", "stop": "lo"});
    let choice = &server.post("/v1/chat/completions", body).await.json()["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["matched_stop"]),
        (&json!("Hel"), &json!("lo"))
    );
    let many = |counts: &[usize]| {
        let params = counts.iter().map(|&count| json!({"stop_regex": vec!["l+o"; count]}));
        json!({"text": vec!["x"; counts.len()], "sampling_params": params.collect::<Vec<_>>()})
    };
    assert_eq!(server.post("/generate", many(&[32, 32, 32, 32])).await.status, 200);
    let answer = server.post("/generate", many(&[32, 32, 32, 32, 1])).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("at most 128 stop_regex"), "{}", answer.text);
    let refused = json!({"text": "x", "sampling_params": {"stop_regex": "a(?=b)"}});
    let answer = server.post("/generate", refused).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text.contains("stop_regex") && answer.text.contains("look-around"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn text_that_may_become_a_stop_string_is_held_back() {
    let server = Server::answering("abSTOabSTOPxy");
    let body = json!({"text": "x", "stream": true, "sampling_params": {"stop": "STOP"}});
    let events = server.post("/generate", body).await.events();
    let texts: Vec<_> = events.iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(
        texts,
        [
            "a", "ab", "ab", "ab", "ab", "abSTOa", "abSTOab", "abSTOab", "abSTOab", "abSTOab",
            "abSTOab"
        ]
    );
}

#[tokio::test]
async fn a_stop_token_is_in_the_ids_and_not_in_the_text() {
    let finish = FinishReason::Stop { matched: Some(MatchedStop::Token(98)) };
    let answer = Answer::ids(&[97, 98], finish);
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let params = json!({"stop_token_ids": [98], "skip_special_tokens": false});
    let trimmed = server.post("/generate", json!({"text": "x", "sampling_params": params})).await;
    assert_eq!(trimmed.json()["text"], "a");
    assert_eq!(trimmed.json()["output_ids"], json!([97, 98]));
    let params = json!({"stop_token_ids": [98], "no_stop_trim": true});
    let kept = server.post("/generate", json!({"text": "x", "sampling_params": params})).await;
    assert_eq!(kept.json()["text"], "ab");
}

#[tokio::test]
async fn no_tokens_may_be_asked_for() {
    let answer = Answer {
        events: vec![vec![]],
        finish: Some(FinishReason::Length { length: 0 }),
        dies: false,
    };
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let params = json!({"max_new_tokens": 0});
    let body = json!({"text": "x", "sampling_params": params, "return_prompt_token_ids": true});
    let answer = server.post("/generate", body).await.json();
    assert_eq!((&answer["text"], &answer["output_ids"]), (&json!(""), &json!([])));
    assert_eq!(answer["prompt_token_ids"], json!([120]));
}
