//! What a request asks for, as the grammar that its sequences follow.

use constrained::GrammarBackendEntry;
use protocol::native::SAMPLING_TABLE;
use serde_json::{Value, json};
use server::{GrammarConfig, ServerConfig};
use types::{TokenGrammar, TokenId};

use crate::support::{Answer, FakeEngine, Server, config};

const END: TokenId = 257;

/// Whether the grammar takes the whole text and may end there.
fn takes(grammar: &dyn TokenGrammar, text: &str) -> bool {
    let mut grammar = grammar.boxed_clone();
    let tokens = text.bytes().map(TokenId::from).chain([END]);
    tokens.into_iter().all(|token| grammar.accept(token).is_ok()) && grammar.is_terminated()
}

async fn grammar_of(path: &str, body: Value) -> Option<Box<dyn TokenGrammar>> {
    let server = Server::answering("x");
    let answer = server.post(path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    server.engine.next_req().await.grammar
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
           "additionalProperties": false})
}

#[tokio::test]
async fn of_generate() {
    let with =
        |params: Value| grammar_of("/generate", json!({"text": "x", "sampling_params": params}));
    let grammar = with(json!({"json_schema": schema().to_string()})).await.unwrap();
    assert!(takes(&*grammar, "{\"a\": 5}") && !takes(&*grammar, "{\"b\": 5}"));
    let grammar = with(json!({"regex": "(yes|no)!"})).await.unwrap();
    assert!(takes(&*grammar, "yes!") && takes(&*grammar, "no!") && !takes(&*grammar, "yes"));
    let grammar = with(json!({"json_schema": "$$ANY$$"})).await.unwrap();
    assert!(takes(&*grammar, "[1, {}]"));
    assert!(with(json!({"regex": null, "ebnf": ""})).await.is_none());
}

#[tokio::test]
async fn of_openai_bodies() {
    let chat = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        grammar_of("/v1/chat/completions", body)
    };
    let completion = |more: Value| {
        let mut body = json!({"prompt": "Hi"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        grammar_of("/v1/completions", body)
    };
    let object = json!({"response_format": {"type": "json_object"}});
    let named = json!({"response_format": {"type": "json_schema",
        "json_schema": {"name": "a", "schema": schema(), "strict": true}}});
    for grammar in [chat(object.clone()).await, completion(object).await] {
        let grammar = grammar.unwrap();
        assert!(takes(&*grammar, "{\"x\": []}") && !takes(&*grammar, "[]"));
    }
    for grammar in [
        chat(named.clone()).await,
        completion(named).await,
        completion(json!({"json_schema": schema().to_string()})).await,
    ] {
        let grammar = grammar.unwrap();
        assert!(takes(&*grammar, "{\"a\":1}") && !takes(&*grammar, "{\"a\":\"1\"}"));
    }
    for grammar in [chat(json!({"regex": "a+"})).await, completion(json!({"regex": "a+"})).await] {
        assert!(takes(&*grammar.unwrap(), "aaa"));
    }
    assert!(chat(json!({"response_format": {"type": "text"}})).await.is_none());
}

#[tokio::test]
async fn of_other_dialects() {
    let with = |path: &'static str, mut body: Value, more: Value| async move {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        grammar_of(path, body).await
    };
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let chat = json!({"model": "m", "max_tokens": 9, "messages": messages});
    let prompt = json!({"model": "m", "prompt": "Hi"});
    let input = json!({"input": "Hi"});
    let format = json!({"type": "json_schema", "schema": schema()});
    let named = json!({"type": "json_schema", "name": "a", "strict": true, "schema": schema()});
    for grammar in [
        with("/v1/messages", chat.clone(), json!({"output_config": {"format": format}})).await,
        with("/api/chat", chat.clone(), json!({"format": schema()})).await,
        with("/api/generate", prompt.clone(), json!({"format": schema()})).await,
        with("/api/generate", prompt.clone(), json!({"format": schema(), "raw": true})).await,
        with("/v1/responses", input.clone(), json!({"text": {"format": named}})).await,
    ] {
        let grammar = grammar.unwrap();
        assert!(takes(&*grammar, "{\"a\":1}") && !takes(&*grammar, "{\"a\":\"1\"}"));
    }
    let object = json!({"text": {"format": {"type": "json_object"}}});
    for grammar in [
        with("/api/chat", chat.clone(), json!({"format": "json"})).await,
        with("/api/generate", prompt.clone(), json!({"format": "json"})).await,
        with("/v1/responses", input.clone(), object).await,
    ] {
        let grammar = grammar.unwrap();
        assert!(takes(&*grammar, "{\"x\": []}") && !takes(&*grammar, "[]"));
    }
    for (path, body, none) in [
        ("/v1/messages", &chat, json!({"output_config": {"format": null, "effort": "low"}})),
        ("/api/chat", &chat, json!({"format": ""})),
        ("/api/generate", &prompt, json!({"format": null})),
        ("/v1/responses", &input, json!({"text": {"format": {"type": "text"}}})),
        ("/v1/responses", &input, json!({"text": {"format": null}})),
    ] {
        assert!(with(path, body.clone(), none).await.is_none(), "{path}");
    }
}

#[tokio::test]
async fn each_sequence_has_a_grammar_of_its_own() {
    let server = Server::answering("x");
    let params = json!([{"regex": "a", "n": 2}, {"n": 2}]);
    let body = json!({"text": ["x", "y"], "sampling_params": params});
    assert_eq!(server.post("/generate", body).await.status, 200);
    let mut follow = Vec::new();
    for _ in 0..4 {
        follow.push(server.engine.next_req().await.grammar.is_some());
    }
    assert_eq!(follow, [true, true, false, false]);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_the_reason() {
    let server = Server::answering("x");
    for (params, reason) in [
        (json!({"regex": "(a"}), "Failed to compile regex grammar: "),
        (json!({"json_schema": "{"}), "Failed to compile json_schema grammar: "),
        (json!({"regex": "a", "json_schema": "{}"}), "Only one of regex, json_schema, "),
    ] {
        let body = json!({"text": "x", "sampling_params": params});
        let answer = server.post("/generate", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(reason), "{message}");
    }
    let format = json!({"type": "json_schema", "json_schema": {"name": "a"}});
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "response_format": format});
    let answer = server.post("/v1/chat/completions", body).await;
    assert!(answer.text.contains("schema_ is required"), "{}", answer.text);
    assert!(SAMPLING_TABLE.unsupported.iter().all(|field| field.name != "regex"));
}

#[tokio::test]
async fn a_grammar_begins_after_reasoning() {
    let chat = |parser: &'static str, more: Value| async move {
        let server = Server::parsing(parser, "none", &["x"]);
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "regex": "[0-9]"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(server.post("/v1/chat/completions", body).await.status, 200);
        server.engine.next_req().await.grammar.unwrap()
    };
    for more in [json!({}), json!({"separate_reasoning": false})] {
        let thinking = chat("qwen3", more).await;
        assert!(takes(&*thinking, "I think.</think>7") && !takes(&*thinking, "7"));
        assert!(!takes(&*thinking, "I think.</think>x"));
    }
    let off = json!({"chat_template_kwargs": {"enable_thinking": false}});
    assert!(takes(&*chat("qwen3", off).await, "7"));
    assert!(takes(&*chat("none", json!({})).await, "7"));
    let body = json!({"text": "x", "require_reasoning": true, "sampling_params": {"regex": "7"}});
    let server = Server::parsing("qwen3", "none", &["x"]);
    assert_eq!(server.post("/generate", body.clone()).await.status, 200);
    let native = server.engine.next_req().await.grammar.unwrap();
    assert!(takes(&*native, "So</think>7") && !takes(&*native, "7"));
    let answer = Server::answering("x").post("/generate", body).await;
    assert!(answer.text.contains("require_reasoning needs"), "{}", answer.text);
    let harmony = chat("gpt-oss", json!({})).await;
    assert!(takes(&*harmony, "So.<|end|><|start|>assistant<|channel|>final<|message|>7"));
    for (is_raw, text) in [(false, "Hm.</think>{}"), (true, "{}")] {
        let server = Server::parsing("qwen3", "none", &["x"]);
        let body = json!({"model": "m", "prompt": "Hi", "format": "json", "raw": is_raw});
        assert_eq!(server.post("/api/generate", body).await.status, 200);
        let grammar = server.engine.next_req().await.grammar.unwrap();
        assert!(takes(&*grammar, text), "{text}");
    }
}

/// Whatever fails beside the compilation itself is the grammar's fault to a client as well.
#[tokio::test]
async fn a_backend_that_panics_is_a_refusal_that_names_the_grammar() {
    static PANICKING: GrammarBackendEntry = GrammarBackendEntry {
        name: "panicking",
        new: Some(|_, _| panic!("no vocabulary like this")),
    };
    let grammar = GrammarConfig { backend: &PANICKING, ..GrammarConfig::default() };
    let engine = FakeEngine::start(|_| Answer::text("x"));
    let server = Server::with_config(engine, ServerConfig { grammar, ..config() });
    for (kind, text) in [("regex", "a+"), ("json_schema", "{}"), ("regex", "a+")] {
        let params = json!({ kind: text });
        let answer =
            server.post("/generate", json!({"text": "x", "sampling_params": params})).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let message = format!("Failed to compile {kind} grammar: the grammar backend gave up");
        assert!(answer.text.contains(&message), "{}", answer.text);
    }
    assert_eq!(server.post("/generate", json!({"text": "x"})).await.status, 200);
}

#[tokio::test]
async fn metrics_tell_of_grammars() {
    let server = Server::answering("x");
    for (regex, status) in [("a+", 200), ("a+", 200), ("(a", 400)] {
        let body = json!({"text": "x", "sampling_params": {"regex": regex}});
        assert_eq!(server.post("/generate", body).await.status, status);
    }
    let text = server.get("/metrics").await.text;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("sglang:{name}{{")));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    for (name, expected) in [
        ("num_grammar_total", "3"),
        ("num_grammar_cache_hit_total", "1"),
        ("num_grammar_aborted_total", "1"),
        ("num_grammar_queue_reqs", "0"),
        ("grammar_compilation_time_seconds_count", "2"),
        // Of those that ran.
        ("queue_time_seconds_count", "2"),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
}
