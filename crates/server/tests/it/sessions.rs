//! `/open_session`, `/close_session` and requests in sessions.

use serde_json::{Value, json};
use server::ServerConfig;
use types::Rid;

use crate::support::{Answer, FakeEngine, Seen, Server, bytes_as_ids, config};

async fn open(server: &Server, body: Value) -> String {
    let answer = server.post("/open_session", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json().as_str().unwrap().to_owned()
}

fn turn(text: &str, session: Value) -> Value {
    json!({"text": text, "session_params": session})
}

async fn prompt_of(server: &Server) -> Vec<u32> {
    server.engine.next_req().await.input_ids
}

#[tokio::test]
async fn a_conversation_brings_only_what_is_new() {
    let server = Server::answering("yes");
    let id = open(&server, json!({"capacity_of_str_len": 1000})).await;
    let first = server.post("/generate", turn("ab", json!({"id": id}))).await.json();
    assert_eq!(prompt_of(&server).await, bytes_as_ids("ab"));
    let after = json!({"id": id, "rid": first["meta_info"]["id"]});
    let next = server.post("/generate", turn("cd", after.clone())).await.json();
    // The token that ended the first is part of it.
    let history = [bytes_as_ids("abyes"), vec![257]].concat();
    assert_eq!(prompt_of(&server).await, [history.clone(), bytes_as_ids("cd")].concat());
    assert_eq!(next["meta_info"]["prompt_tokens"], 8);
    // A branch, as a stream, of what was said up to a stop string.
    let mut body = turn("ef", after);
    body["stream"] = json!(true);
    body["sampling_params"] = json!({"stop": "e"});
    let events = server.post("/generate", body).await.events();
    assert_eq!(prompt_of(&server).await, [history.clone(), bytes_as_ids("ef")].concat());
    let rid = &events.last().unwrap()["meta_info"]["id"];
    let wanted = json!({"id": id, "rid": rid, "offset": -1});
    assert_eq!(server.post("/generate", turn("g", wanted)).await.status, 200);
    let Seen::Abort(_) = server.engine.next_seen().await else { panic!("a stop string aborts") };
    assert_eq!(prompt_of(&server).await, [history, bytes_as_ids("efyg")].concat());
    let closed = server.post("/close_session", json!({"session_id": id})).await;
    assert_eq!((closed.status.as_u16(), closed.text.as_str()), (200, ""));
    let answer = server.post("/generate", turn("x", json!({"id": id}))).await;
    assert_eq!(answer.status, 400);
    let message = format!("Invalid request: session id {id} does not exist");
    assert_eq!(answer.json(), json!({"error": {"message": message}}));
}

fn completion(text: &str, session: Value) -> Value {
    json!({"prompt": text, "session_params": session})
}

fn chat(text: &str, session: Value) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "session_params": session})
}

#[tokio::test]
async fn completions_and_chats_are_turns_too() {
    let server = Server::answering("yes");
    let id = open(&server, json!({"capacity_of_str_len": 1000})).await;
    let first = server.post("/v1/completions", completion("ab", json!({"id": id}))).await.json();
    assert_eq!(prompt_of(&server).await, bytes_as_ids("ab"));
    let mut history = [bytes_as_ids("abyes"), vec![257]].concat();
    let after = json!({"id": id, "rid": first["id"]});
    let mut body = chat("cd", after);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = server.post("/v1/chat/completions", body).await.events();
    // The template's words, as those of a chat that begins here.
    let question = [vec![258], bytes_as_ids("user\ncd"), vec![259], bytes_as_ids("\n")].concat();
    history.extend([question, vec![258], bytes_as_ids("assistant\n")].concat());
    assert_eq!(prompt_of(&server).await, history);
    let last = events.last().unwrap();
    assert_eq!(last["usage"]["prompt_tokens"], history.len());
    // One token of that answer is kept, of a request that another name was given.
    let kept = history.len() + 1;
    let again = json!({"id": id, "rid": last["id"], "offset": kept});
    let mut body = completion("e", again);
    body["rid"] = json!("mine");
    let again = server.post("/v1/completions", body).await.json();
    assert_eq!(prompt_of(&server).await, [history.clone(), bytes_as_ids("ye")].concat());
    assert_eq!(again["usage"]["prompt_tokens"], kept + 1);
    let replace = json!({"id": id, "rid": "mine", "replace": true, "drop_previous_output": true});
    assert_eq!(server.post("/v1/completions", completion("f", replace)).await.status, 200);
    assert_eq!(prompt_of(&server).await, [history, bytes_as_ids("yef")].concat());
}

#[tokio::test]
async fn chats_go_on_in_a_streaming_session() {
    let config = ServerConfig { enable_streaming_session: true, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("yes")), config);
    let id = open(&server, json!({"capacity_of_str_len": 1000, "streaming": true})).await;
    let mut lens = Vec::new();
    for text in ["a", "b"] {
        let answer = server.post("/v1/chat/completions", chat(text, json!({"id": id}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        lens.push(prompt_of(&server).await.len());
    }
    // The first prompt, its answer of four tokens, and a prompt as long as the first.
    assert_eq!(lens[1], 2 * lens[0] + 4);
    let refused = chat("c", json!({"id": id, "replace": true}));
    let answer = server.post("/v1/chat/completions", refused).await;
    assert!(answer.text.contains("do not support replace"), "{}", answer.text);
}

#[tokio::test]
async fn a_request_that_runs_can_be_replaced() {
    let engine = FakeEngine::start(|req| match req.rid.as_str() {
        "slow" => Answer { events: vec![vec![98]], ..Answer::endless("") },
        _ => Answer::text("yes"),
    });
    let server = std::sync::Arc::new(Server::new(engine));
    let id = open(&server, json!({"capacity_of_str_len": 1000, "session_id": "mine"})).await;
    assert_eq!(id, "mine");
    let mut slow = turn("a", json!({"id": id}));
    slow["rid"] = json!("slow");
    let waiting = tokio::spawn({
        let server = std::sync::Arc::clone(&server);
        async move { server.post("/generate", slow).await.status }
    });
    assert_eq!(prompt_of(&server).await, bytes_as_ids("a"));
    let append = server.post("/generate", turn("c", json!({"id": id, "rid": "slow"}))).await;
    assert!(append.text.contains("appending to a request that hasn't finished"), "{}", append.text);
    let replace = json!({"id": id, "rid": "slow", "replace": true, "drop_previous_output": true});
    assert_eq!(server.post("/generate", turn("c", replace)).await.status, 200);
    let seen = [server.engine.next_seen().await, server.engine.next_seen().await];
    assert_eq!(seen[0], Seen::Abort(Some(Rid::new("slow"))));
    let Seen::Generate(req) = &seen[1] else { panic!("{seen:?}") };
    assert_eq!(req.input_ids, bytes_as_ids("ac"));
    waiting.abort();
}

#[tokio::test]
async fn a_streaming_session_needs_the_option() {
    let body = json!({"capacity_of_str_len": 1000, "streaming": true});
    let answer = Server::answering("x").post("/open_session", body.clone()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("relaunch with --enable-streaming-session"), "{}", answer.text);
    let config = ServerConfig { enable_streaming_session: true, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("yes")), config);
    let id = open(&server, body).await;
    for (text, prompt) in [("a", "a"), ("b", "ayes\0b")] {
        let session = json!({"id": id, "rid": null});
        assert_eq!(server.post("/generate", turn(text, session)).await.status, 200);
        let mut wanted = bytes_as_ids(prompt);
        wanted.iter_mut().filter(|id| **id == 0).for_each(|id| *id = 257);
        assert_eq!(prompt_of(&server).await, wanted);
    }
    let answer = server.post("/generate", turn("c", json!({"id": id, "offset": 1}))).await;
    assert!(answer.text.contains("do not support offset"), "{}", answer.text);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let server = Server::answering("x");
    let id = open(&server, json!({"capacity_of_str_len": 1000, "session_id": "s"})).await;
    for (path, body, reason) in [
        ("/open_session", json!({}), "capacity_of_str_len"),
        ("/open_session", json!({"capacity_of_str_len": 1, "session_id": id}), "same id"),
        ("/open_session", json!({"capacity_of_str_len": 1, "timeout": -1}), "timeout must be"),
        ("/close_session", json!({}), "session_id"),
        ("/generate", turn("x", json!({"id": "t"})), "session id t does not exist"),
        ("/generate", turn("x", json!({"id": id, "rid": "a"})), "Invalid request session id"),
        ("/generate", turn("x", json!({"id": id, "name": "a"})), "unknown field `name`"),
        ("/generate", json!({"text": ["x", "y"], "session_params": {"id": id}}), "one prompt"),
        (
            "/generate",
            json!({"text": "x", "sampling_params": {"n": 2}, "session_params": {"id": id}}),
            "one prompt",
        ),
        ("/generate", json!({"input_ids": [], "session_params": {"id": id}}), "must contain input"),
        ("/generate", turn(&"x".repeat(300), json!({"id": id})), "longer than the model's context"),
        ("/v1/completions", completion("x", json!({"id": "t"})), "session id t does not exist"),
        ("/v1/completions", completion("x", json!({"id": id, "name": 1})), "unknown field `name`"),
        (
            "/v1/completions",
            json!({"prompt": ["x", "y"], "session_params": {"id": id}}),
            "one prompt",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "echo": true, "logprobs": 1, "session_params": {"id": id}}),
            "`echo` with `logprobs`",
        ),
        (
            "/v1/chat/completions",
            chat("x", json!({"id": id, "rid": "a"})),
            "Invalid request session id",
        ),
    ] {
        let answer = server.post(path, body.clone()).await;
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text);
        assert!(answer.text.contains(reason), "{path} {body}: {}", answer.text);
    }
    // No session: a request like any other.
    for none in [json!({}), json!(null), json!({"id": null})] {
        assert_eq!(server.post("/generate", turn("x", none.clone())).await.status, 200);
        let answer = server.post("/v1/chat/completions", chat("x", none)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let closed = server.post("/close_session", json!({"session_id": "nobody's"})).await;
    assert_eq!(closed.status, 200);
}
