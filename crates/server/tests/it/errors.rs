//! Bad input: each kind is a 400 (or a 413, 415, 503) with its reason, and the
//! server goes on.

use serde_json::{Value, json};
use types::EngineStatus;

use crate::support::{Answer, Answered, FakeEngine, Server, config};

const GENERATE: &str = "/generate";
const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// The message of either error shape.
fn message(answer: &Answered) -> String {
    let json = answer.json();
    let message = json["error"]["message"].as_str().or(json["message"].as_str());
    message.unwrap_or_else(|| panic!("no message in {}", answer.text)).to_owned()
}

async fn refused(server: &Server, path: &str, body: Value, reason: &str) {
    let answer = server.post(path, body.clone()).await;
    assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text);
    assert!(message(&answer).contains(reason), "{path} {body}: {}", answer.text);
}

#[tokio::test]
async fn bodies_that_are_not_the_json_we_want() {
    let server = Server::answering("x");
    for path in [GENERATE, COMPLETIONS, CHAT, "/tokenize", "/detokenize", "/abort_request"] {
        for body in ["", "{", "[]", "3", "\"text\"", "{\"text\": NaN}", "{\"a\":1}}", "\u{0}"] {
            let answer = server.post_text(path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}");
            assert_eq!(answer.json()["object"], "error");
            assert_eq!(answer.json()["code"], 400);
        }
        let answer = server.post_text(path, b"{\"text\":\"\xff\"}".to_vec()).await;
        assert_eq!(answer.status, 400, "{path}: not UTF-8");
        let deep = "[".repeat(200_000);
        let answer = server.post_text(path, format!("{{\"rid\":{deep}")).await;
        assert_eq!(answer.status, 400, "{path}: deep");
    }
    assert_eq!(server.post(GENERATE, json!({"text": "x"})).await.status, 200);
}

#[tokio::test]
async fn wrong_types_and_values_of_generate() {
    let server = Server::answering("x");
    for (body, reason) in [
        (json!({"text": 3}), "a string or a list of them"),
        (json!({"text": ["a", 3]}), "string"),
        (json!({"input_ids": "a"}), "a list of token ids"),
        (json!({"input_ids": [1.5]}), "token id"),
        (json!({"input_ids": [1, [2]]}), "expected"),
        (json!({"text": "x", "stream": "yes"}), "boolean"),
        (json!({"text": "x", "sampling_params": 3}), "sampling parameters"),
        (json!({"text": "x", "sampling_params": {"temperature": "NaN"}}), "f64"),
        (json!({"text": "x", "sampling_params": {"temperature": -1}}), "temperature"),
        (json!({"text": "x", "sampling_params": {"temperature": 1e300}}), "temperature"),
        (json!({"text": "x", "sampling_params": {"temprature": 1}}), "unknown field `temprature`"),
        (json!({"text": "x", "sampling_params": [{}, {}]}), "2 sampling_params for 1 prompts"),
        (
            json!({"text": ["x", "y"], "sampling_params": [{"n": 1}, {"n": 2}]}),
            "n must be the same",
        ),
        (json!({"text": "x", "sampling_params": {"stop": vec!["s"; 10_000]}}), "got 10000"),
        (json!({}), "either text or input_ids"),
        (json!({"text": "x", "input_ids": [1]}), "either text or input_ids"),
        (json!({"text": ""}), "empty"),
        (json!({"text": ["a", ""]}), "empty"),
        (json!({"text": []}), "empty"),
        (json!({"input_ids": []}), "empty"),
        (json!({"input_ids": [[1], []]}), "empty"),
        (json!({"input_ids": [1, 260]}), "Token id 260 is outside the vocabulary [0, 260)"),
        (json!({"input_ids": [-1]}), "Token id -1"),
        (json!({"input_ids": [[1], [4294967296u64]]}), "Token id 4294967296"),
        (
            json!({"text": "a".repeat(256)}),
            "(256 tokens) is longer than the model's context length (256",
        ),
        (json!({"text": "a".repeat(9_000)}), "(at least 750 tokens) is longer"),
        (
            json!({"text": "a".repeat(251)}),
            "(251 tokens) is longer than what this server can hold (250",
        ),
        (json!({"input_ids": vec![1; 300]}), "(300 tokens)"),
        (json!({"text": "abc", "sampling_params": {"max_new_tokens": 254}}), "257 tokens"),
        (json!({"text": "x", "sampling_params": {"n": 5000}}), "n must be in"),
        (json!({"text": vec!["x"; 3000], "sampling_params": {"n": 2}}), "at most 4096 sequences"),
        (json!({"text": ["x", "y"], "rid": ["a"]}), "1 rids for 2 prompts"),
        (json!({"text": ["x", "y"], "rid": ["a", "a"]}), "Duplicate request ID"),
    ] {
        refused(&server, GENERATE, body, reason).await;
    }
    let answer =
        server.post_text(GENERATE, r#"{"text":"x","sampling_params":{"top_p":1e999}}"#).await;
    assert_eq!(answer.status, 400);
    assert_eq!(server.state.num_live_requests(), 0);
    // Without a named maximum the context's end is the limit.
    assert_eq!(server.post(GENERATE, json!({"text": "a".repeat(250)})).await.status, 200);
}

#[tokio::test]
async fn wrong_types_and_values_of_openai_routes() {
    let server = Server::answering("x");
    for (body, reason) in [
        (json!({}), "prompt"),
        (json!({"prompt": ""}), "Prompt cannot be empty"),
        (json!({"prompt": []}), "Prompt cannot be empty"),
        (json!({"prompt": [[1], []]}), "Prompt cannot be empty"),
        (json!({"prompt": ["a", 1]}), "one kind"),
        (json!({"prompt": {"a": 1}}), "a string, a list"),
        (json!({"prompt": [260]}), "outside the vocabulary"),
        (json!({"prompt": "x", "max_tokens": "many"}), "an integer"),
        (json!({"prompt": "x", "max_tokens": 256}), "257 tokens"),
        (json!({"prompt": "x", "n": 0}), "n must be"),
        (json!({"prompt": "x", "best_of": 2}), "`best_of`"),
        (json!({"prompt": "x", "stop": vec!["s"; 33]}), "at most 32 stop strings"),
    ] {
        refused(&server, COMPLETIONS, body, reason).await;
    }
    let hi = json!([{"role": "user", "content": "Hi"}]);
    for (body, reason) in [
        (json!({}), "Messages cannot be empty"),
        (json!({"messages": []}), "Messages cannot be empty"),
        (json!({"messages": "Hi"}), "sequence"),
        (json!({"messages": [{"content": "Hi"}]}), "role"),
        (json!({"messages": [{"role": "user", "content": 3}]}), "a string or a list"),
        (json!({"messages": [{"role": "user", "content": [{"text": "x"}]}]}), "type"),
        (json!({"messages": hi, "max_completion_tokens": 250}), "tokens"),
        (json!({"messages": hi, "temperature": -0.5}), "temperature"),
        (json!({"messages": hi, "chat_template_kwargs": {"chat_template": "x"}}), "chat_template"),
        (json!({"messages": [{"role": "user", "content": "a".repeat(9_000)}]}), "is longer"),
    ] {
        refused(&server, CHAT, body, reason).await;
    }
}

#[tokio::test]
async fn the_two_error_shapes() {
    let server = Server::answering("x");
    let native = server.post(GENERATE, json!({"text": ""})).await.json();
    assert_eq!(native, json!({"error": {"message": "The prompt is empty."}}));
    let openai = server.post(COMPLETIONS, json!({"prompt": ""})).await.json();
    let flat = json!({"object": "error", "message": "Prompt cannot be empty",
                      "type": "BadRequestError", "param": null, "code": 400});
    assert_eq!(openai, flat);
}

#[tokio::test]
async fn a_live_rid_cannot_be_taken_twice() {
    let server = Server::new(FakeEngine::start(|_| Answer::endless("abc")));
    let body = json!({"text": "x", "rid": "r", "stream": true}).to_string();
    let request =
        || axum::http::Request::post(GENERATE).body(axum::body::Body::from(body.clone())).unwrap();
    let first = server.raw(request()).await;
    assert_eq!(first.status(), 200);
    refused(&server, GENERATE, json!({"text": "x", "rid": "r"}), "Duplicate request ID").await;
    drop(first);
    assert_eq!(server.raw(request()).await.status(), 200);
}

#[tokio::test]
async fn openai_routes_insist_on_json() {
    let server = Server::answering("x");
    for (content_type, status) in [
        ("text/plain", 400),
        ("application/jsonp", 400),
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON", 200),
    ] {
        let request = axum::http::Request::post(COMPLETIONS).header("content-type", content_type);
        let body = json!({"prompt": "x"}).to_string();
        let answer = server.send(request.body(body.into()).unwrap()).await;
        assert_eq!(answer.status, status, "{content_type}");
    }
}

#[tokio::test]
async fn compressed_bodies_are_refused_as_such() {
    let server = Server::answering("x");
    for (encoding, status) in [("gzip", 415), ("br", 415), ("identity", 200), ("Identity", 200)] {
        let request = axum::http::Request::post(GENERATE).header("content-encoding", encoding);
        let body = json!({"text": "x"}).to_string();
        let answer = server.send(request.body(body.into()).unwrap()).await;
        assert_eq!(answer.status, status, "{encoding}");
        assert!(status == 200 || message(&answer).contains(encoding), "{}", answer.text);
    }
}

/// Some clients know floating-point numbers only.
#[tokio::test]
async fn integers_may_be_written_with_a_fraction_of_zero() {
    let server = Server::answering("x");
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body) in [
        (GENERATE, json!({"text": "x", "sampling_params": {"max_new_tokens": 4.0, "n": 1.0}})),
        (COMPLETIONS, json!({"prompt": "x", "max_tokens": 4.0, "seed": 7.0, "top_k": 3.0})),
        (CHAT, json!({"messages": messages, "max_tokens": 4.0, "n": 1.0, "top_k": -1.0})),
        ("/v1/messages", json!({"model": "x", "messages": messages, "max_tokens": 4.0})),
        ("/v1/responses", json!({"input": "x", "max_output_tokens": 4.0})),
        ("/api/chat", json!({"model": "x", "messages": messages, "options": {"top_k": 3.0}})),
    ] {
        let answer = server.post(path, body.clone()).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text);
    }
    refused(&server, COMPLETIONS, json!({"prompt": "x", "max_tokens": 4.5}), "an integer").await;
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let server = Server::answering("x");
    for path in [GENERATE, COMPLETIONS, CHAT] {
        let answer = server.post(path, json!({"text": "a".repeat(10 << 20)})).await;
        assert_eq!(answer.status, 413, "{path}");
        assert_eq!(answer.json()["code"], 413);
    }
    // Chunked: nobody says how long it will be.
    let chunk = || Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![b' '; 1 << 16]));
    let stream = futures_util::stream::iter((0..64).map(move |_| chunk()));
    let answer = server.post_text(GENERATE, axum::body::Body::from_stream(stream)).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_large_prompt_is_refused_before_it_is_tokenized() {
    let config = server::ServerConfig { max_body_bytes: 16 << 20, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    refused(&server, GENERATE, json!({"text": "a b".repeat(3 << 20)}), "at least").await;
    refused(&server, GENERATE, json!({"input_ids": vec![7; 2 << 20]}), "2097152 tokens").await;
}

#[tokio::test]
async fn a_full_queue_is_503() {
    let (engine, _inbox) = FakeEngine::stuck();
    let server = Server::new(engine);
    let body = json!({"text": "x", "stream": true}).to_string();
    let request = axum::http::Request::post(GENERATE).body(body.into()).unwrap();
    let first = server.raw(request).await;
    assert_eq!(first.status(), 200);
    for path in [GENERATE, COMPLETIONS] {
        let answer = server.post(path, json!({"text": "x", "prompt": "x"})).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["message"], "The request queue is full.");
    }
    assert_eq!(server.state.num_live_requests(), 1);
}

#[tokio::test]
async fn an_engine_that_does_not_run_is_503() {
    let server = Server::answering("x");
    for status in [EngineStatus::Starting, EngineStatus::Draining, EngineStatus::Failed] {
        server.engine.handle().status_cell().set(status);
        for path in [GENERATE, COMPLETIONS, CHAT] {
            let answer = server.post(path, json!({"text": "x"})).await;
            assert_eq!(answer.status, 503, "{path} {status:?}");
        }
        for path in ["/health", "/health_generate", "/ready"] {
            assert_eq!(server.get(path).await.status, 503, "{path} {status:?}");
        }
    }
}

#[tokio::test]
async fn unknown_routes_and_methods() {
    let server = Server::answering("x");
    let answer = server.get("/v1/nothing").await;
    assert_eq!(answer.status, 404);
    let flat = json!({"object": "error", "message": "Not Found", "type": "404", "param": null,
                      "code": 404});
    assert_eq!(answer.json(), flat);
    let answer = server.get(GENERATE).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["message"], "Method Not Allowed");
}

#[tokio::test]
async fn a_slash_too_many_is_a_redirect() {
    let server = Server::answering("x");
    for (path, location) in [
        ("/v1/chat/completions/", Some("/v1/chat/completions")),
        ("/v1/models/", Some("/v1/models")),
        ("/flush_cache/?timeout=1", Some("/flush_cache?timeout=1")),
        ("/v1/nothing/", None),
        ("//evil.example/", None),
    ] {
        let request = axum::http::Request::post(path).body(axum::body::Body::empty()).unwrap();
        let answer = server.raw(request).await;
        assert_eq!(answer.status(), if location.is_some() { 307 } else { 404 }, "{path}");
        let header = answer.headers().get("location").map(|value| value.to_str().unwrap());
        assert_eq!(header, location, "{path}");
    }
}
