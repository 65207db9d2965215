//! Leaving, aborting, and an engine that gives up.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use server::{AnswerParsers, ServerConfig};
use types::{FinishReason, Rid};

use crate::support::{Answer, FakeEngine, Seen, Server, bytes_as_ids, config, tokenizer};

fn post(path: &str, body: serde_json::Value) -> axum::http::Request<axum::body::Body> {
    axum::http::Request::post(path)
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

#[tokio::test]
async fn dropping_a_stream_aborts_every_sequence() {
    let server = Server::new(FakeEngine::start(|_| Answer::endless("abc")));
    let body = json!({"text": ["x", "y"], "rid": ["r", "s"], "stream": true});
    let response = server.raw(post("/generate", body)).await;
    let mut stream = response.into_body().into_data_stream();
    assert!(stream.next().await.is_some());
    assert_eq!(server.state.num_live_requests(), 2);
    drop(stream);
    let mut closed = Vec::new();
    while closed.len() < 2 {
        if let Seen::Closed(rid) = server.engine.next_seen().await {
            closed.push(rid.as_str().to_owned());
        }
    }
    closed.sort();
    assert_eq!(closed, ["r", "s"]);
    assert_eq!(server.state.num_live_requests(), 0);
}

#[tokio::test]
async fn a_name_is_free_when_its_sequence_has_ended() {
    let server = Server::new(FakeEngine::start(|req| match req.rid.as_str() {
        "r" => Answer::text("x"),
        _ => Answer::endless("abc"),
    }));
    let body = json!({"text": ["x", "y"], "rid": ["r", "s"], "stream": true});
    let response = server.raw(post("/generate", body)).await;
    let mut stream = response.into_body().into_data_stream();
    let first_end = async {
        while server.state.num_live_requests() == 2 {
            assert!(stream.next().await.is_some());
        }
    };
    tokio::time::timeout(Duration::from_secs(5), first_end).await.expect("one has ended");
    assert_eq!(server.post("/generate", json!({"text": "x", "rid": "r"})).await.status, 200);
    assert_eq!(server.post("/generate", json!({"text": "x", "rid": "s"})).await.status, 400);
    drop(stream);
}

#[tokio::test]
async fn a_stop_string_tells_the_engine() {
    let server = Server::new(FakeEngine::start(|_| Answer::endless("abc")));
    let body = json!({"text": "x", "rid": "r", "sampling_params": {"stop": "b"}});
    assert_eq!(server.post("/generate", body).await.json()["text"], "a");
    let mut seen = Vec::new();
    for wanted in [Seen::Abort(Some(Rid::new("r"))), Seen::Closed(Rid::new("r"))] {
        while !seen.contains(&wanted) {
            seen.push(server.engine.next_seen().await);
        }
    }
}

#[tokio::test]
async fn a_finished_request_aborts_nothing() {
    let server = Server::answering("x");
    server.post("/generate", json!({"text": "x"})).await;
    assert!(matches!(server.engine.next_seen().await, Seen::Generate(_)));
    server.post("/flush_cache", json!({})).await;
    assert_eq!(server.engine.next_seen().await, Seen::Flush);
}

#[tokio::test]
async fn abort_request_names_the_request_and_its_samples() {
    let server = Server::new(FakeEngine::start(|_| Answer::endless("abc")));
    let body = json!({"text": "x", "rid": "r", "stream": true, "sampling_params": {"n": 2}});
    let response = server.raw(post("/generate", body)).await;
    let other = json!({"text": "x", "rid": "r2", "stream": true});
    let other = server.raw(post("/generate", other)).await;
    for _ in 0..3 {
        assert!(matches!(server.engine.next_seen().await, Seen::Generate(_)));
    }
    assert_eq!(server.post("/abort_request", json!({"rid": "r"})).await.status, 200);
    let mut aborted = [server.engine.next_seen().await, server.engine.next_seen().await];
    aborted.sort_by_key(|seen| format!("{seen:?}"));
    let abort = |name: &str| Seen::Abort(Some(Rid::new(name)));
    assert_eq!(aborted, [abort("r_0"), abort("r_1")]);
    assert_eq!(server.post("/abort_request", json!({"abort_all": true})).await.status, 200);
    assert_eq!(server.engine.next_seen().await, Seen::Abort(None));
    assert_eq!(server.post("/abort_request", json!({})).await.status, 400);
    drop((response, other));
}

#[tokio::test]
async fn an_aborted_request_is_an_answer() {
    let answer = Answer::ids(&[97], FinishReason::aborted());
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let answer = server.post("/generate", json!({"text": "x"})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["text"], "a");
    assert_eq!(answer.json()["meta_info"]["finish_reason"]["type"], "abort");
    let chat = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    let events = server.post("/v1/chat/completions", chat).await.events();
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "abort");
}

#[tokio::test]
async fn what_is_left_of_an_aborted_answer_is_dropped_in_every_dialect() {
    let parsers = AnswerParsers::choose("none", "qwen25", None, &tokenizer()).unwrap();
    let config = ServerConfig { parsers, ..config() };
    let aborted = Some(FinishReason::aborted());
    let answer = Answer { events: vec![bytes_as_ids("see <tool_")], finish: aborted, dies: false };
    let server = Server::with_config(FakeEngine::start(move |_| answer.clone()), config);
    let function = json!({"type": "function", "function": {"name": "f"}});
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"messages": messages, "tools": [function], "stream": true}),
        ),
        (
            "/v1/messages",
            json!({"model": "m", "max_tokens": 9, "messages": messages, "stream": true,
                   "tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
        ),
        ("/api/chat", json!({"model": "m", "messages": messages, "tools": [function]})),
        (
            "/v1/responses",
            json!({"input": "x", "stream": true, "tools": [{"type": "function", "name": "f"}]}),
        ),
    ] {
        let stream = server.post(path, body).await;
        assert_eq!(stream.status, 200, "{path}: {}", stream.text);
        assert!(stream.text.contains("\"see"), "{path}: {}", stream.text);
        assert!(!stream.text.contains("<tool_"), "{path}: {}", stream.text);
    }
}

#[tokio::test]
async fn a_request_that_the_engine_gives_up_is_an_error() {
    let reason = FinishReason::internal_error("out of memory");
    let answer = Answer::ids(&[97], reason);
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    for path in ["/generate", "/v1/completions"] {
        let answer = server.post(path, json!({"text": "x", "prompt": "x"})).await;
        assert_eq!(answer.status, 500);
        assert_eq!(answer.json()["message"], "out of memory");
    }
    let body = json!({"prompt": "x", "stream": true});
    let events = server.post("/v1/completions", body).await.events();
    assert_eq!(events.last().unwrap()["error"]["message"], "out of memory");
}

#[tokio::test]
async fn a_dead_engine_ends_streams_with_an_error() {
    let server = Server::new(FakeEngine::start(|_| Answer { dies: true, ..Answer::endless("ab") }));
    for (path, code) in [("/generate", 500), ("/v1/completions", 500)] {
        let body = json!({"text": "x", "prompt": "x", "stream": true});
        let events = server.post(path, body).await.events();
        assert_eq!(events.last().unwrap()["error"]["code"], code);
        let answer = server.post(path, json!({"text": "x", "prompt": "x"})).await;
        assert_eq!(answer.status, 500);
    }
    assert_eq!(server.state.num_live_requests(), 0);
}

#[tokio::test]
async fn a_stream_that_is_refused_tells_the_length_of_its_prompt() {
    let reason = FinishReason::unavailable("The request queue is full.");
    let refused = Answer { events: vec![Vec::new()], finish: Some(reason), dies: false };
    let server = Server::new(FakeEngine::start(move |_| refused.clone()));
    let answer = server.post("/generate", json!({"input_ids": [5, 6, 7], "stream": true})).await;
    let meta_info = &answer.events()[0]["meta_info"];
    assert_eq!(meta_info["finish_reason"]["status_code"], 503);
    assert_eq!(meta_info["prompt_tokens"], 3);
}
