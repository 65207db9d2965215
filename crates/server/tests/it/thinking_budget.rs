//! Budgets for reasoning, as each dialect has them.

use serde_json::{Value, json};
use server::{AnswerParsers, ServerConfig};
use types::{NextTokens, TokenGrammar, TokenId};

use crate::support::{Answer, FakeEngine, Server, config, tokenizer};

/// What has to come after `text`, which is all that the completion has so far.
fn forced_after(grammar: &dyn TokenGrammar, text: &str) -> String {
    let mut grammar = grammar.boxed_clone();
    text.bytes().for_each(|byte| grammar.accept(byte.into()).unwrap());
    let mut forced = String::new();
    loop {
        let next = grammar.next_tokens().unwrap();
        let mut allowed = (0..=255).filter(|&byte| next.allows(TokenId::from(byte)));
        match (&next, allowed.next(), allowed.next()) {
            (NextTokens::Of(_), Some(byte), None) => {
                forced.push(char::from(byte));
                grammar.accept(byte.into()).unwrap();
            }
            _ => return forced,
        }
    }
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// What the answers to a request follow.
async fn followed(parser: &'static str, path: &str, body: Value) -> Option<Box<dyn TokenGrammar>> {
    let server = Server::parsing(parser, "none", &["x"]);
    let answer = server.post(path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    server.engine.next_req().await.grammar
}

fn chat(more: Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": "Hi"}]}), more)
}

fn of(budget: i64) -> Value {
    json!({"custom_params": {"thinking_budget": budget}})
}

#[tokio::test]
async fn of_openai_bodies() {
    let path = "/v1/chat/completions";
    let grammar = followed("qwen3", path, chat(of(5))).await.unwrap();
    assert_eq!(forced_after(&*grammar, "Well"), "");
    assert_eq!(forced_after(&*grammar, "Well,"), "</think>");
    assert_eq!(forced_after(&*grammar, "We</"), "");
    assert_eq!(forced_after(&*grammar, "Wel</"), "think>");
    assert_eq!(forced_after(&*grammar, "W.</think>and an answer"), "");
    let grammar = followed("qwen3", path, chat(with(of(0), json!({"n": 2})))).await.unwrap();
    assert_eq!(forced_after(&*grammar, ""), "</think>");
    assert!(followed("qwen3", path, chat(of(-1))).await.is_none());
    // A request that asks for no reasoning may get some all the same.
    let off = json!({"chat_template_kwargs": {"enable_thinking": false}});
    let grammar = followed("qwen3", path, chat(with(of(2), off))).await.unwrap();
    assert_eq!(forced_after(&*grammar, "Well, no."), "");
    assert_eq!(forced_after(&*grammar, "<think>No"), "</think>");
    // A budget, and then a grammar.
    let grammar = followed("qwen3", path, chat(with(of(2), json!({"regex": "7!"})))).await.unwrap();
    assert_eq!(forced_after(&*grammar, "Hm"), "</think>7!");
    // Its messages have marks of their own, and there may be several.
    let grammar = followed("gpt-oss", path, chat(of(3))).await.unwrap();
    let thought = "<|channel|>analysis<|message|>Hm";
    assert_eq!(forced_after(&*grammar, thought), "");
    assert_eq!(forced_after(&*grammar, &format!("{thought}.")), "<|end|>");
    let again = format!("{thought}<|end|><|start|>assistant{thought}");
    assert_eq!(forced_after(&*grammar, &again), "<|end|>");
}

#[tokio::test]
async fn of_raw_prompts() {
    for (path, prompt) in [("/generate", "text"), ("/v1/completions", "prompt")] {
        let body = |text: &str| {
            let params = of(3);
            match path {
                "/generate" => json!({prompt: text, "sampling_params": params}),
                _ => with(json!({prompt: text}), params),
            }
        };
        let grammar = followed("qwen3", path, body("Why?<think>\n")).await.unwrap();
        assert_eq!(forced_after(&*grammar, "Hm."), "</think>", "{path}");
        let grammar = followed("qwen3", path, body("Why?<think></think>")).await.unwrap();
        assert_eq!(forced_after(&*grammar, "So it is."), "", "{path}");
        assert_eq!(forced_after(&*grammar, "So<think>Hm."), "</think>", "{path}");
    }
    let native = |more: Value| followed("qwen3", "/generate", with(json!({"text": "x"}), more));
    let more = json!({"require_reasoning": true, "max_thinking_tokens": 4,
                      "sampling_params": of(9)});
    assert_eq!(forced_after(&*native(more).await.unwrap(), "Well"), "</think>");
    let more = json!({"require_reasoning": true, "max_thinking_tokens": -1,
                      "sampling_params": of(9)});
    assert!(native(more).await.is_none());
}

#[tokio::test]
async fn of_other_dialects() {
    let thinking = json!({"type": "enabled", "budget_tokens": 1024});
    let body = chat(json!({"model": "m", "max_tokens": 99, "thinking": thinking}));
    let grammar = followed("qwen3", "/v1/messages", body.clone()).await.unwrap();
    assert_eq!(forced_after(&*grammar, &"a".repeat(1023)), "");
    assert_eq!(forced_after(&*grammar, &"a".repeat(1024)), "</think>");
    assert!(followed("none", "/v1/messages", body).await.is_none(), "there is no reasoning");
    let body = json!({"input": "Hi", "reasoning": {"effort": "low", "max_tokens": 2}});
    let grammar = followed("qwen3", "/v1/responses", body).await.unwrap();
    assert_eq!(forced_after(&*grammar, "Hm"), "</think>");
}

#[tokio::test]
async fn strict_thinking_ends_with_its_mark() {
    let parsers = AnswerParsers::choose("qwen3", "none", None, &tokenizer()).unwrap();
    let config = ServerConfig { parsers, enable_strict_thinking: true, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    assert_eq!(server.post("/v1/chat/completions", chat(json!({}))).await.status, 200);
    let mut grammar = server.engine.next_req().await.grammar.unwrap();
    for byte in "Hm.</think>".bytes() {
        let next = grammar.next_tokens().unwrap();
        let ends = [257, 259];
        assert!(next.allows(byte.into()) && ends.iter().all(|&end| !next.allows(end)), "{next:?}");
        grammar.accept(byte.into()).unwrap();
    }
    assert_eq!(grammar.next_tokens(), Ok(NextTokens::Any));
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let server = Server::answering("x");
    for (path, body, reason) in [
        ("/v1/chat/completions", chat(of(5)), "needs a --reasoning-parser"),
        ("/generate", json!({"text": "x", "max_thinking_tokens": 5}), "needs a --reasoning-parser"),
        (
            "/v1/chat/completions",
            chat(json!({"custom_params": {"other": 5}})),
            "unknown field `other`, expected one of `thinking_budget`",
        ),
        (
            "/generate",
            json!({"text": "x", "sampling_params": {"custom_params": {"thinking_budget": "5"}}}),
            "expected an integer",
        ),
    ] {
        let answer = server.post(path, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(answer.text.contains(reason), "{body}: {}", answer.text);
    }
}

/// The text of a long prompt is made where it holds up nobody.
#[test]
fn a_prompt_is_looked_through_off_the_async_threads() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::parsing("qwen3", "none", &["x"]);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holding = tokio::task::spawn_blocking(move || held.recv().is_err());
        let path = "/v1/completions";
        let prompt = json!({"prompt": [[60, 116, 104, 105, 110, 107, 62]]});
        assert_eq!(server.post(path, prompt.clone()).await.status, 200, "it needs no other thread");
        server.engine.next_req().await;
        let answer = server.post(path, with(prompt, of(0)));
        tokio::pin!(answer);
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut answer).await;
        assert!(early.is_err(), "there is no thread to look through the prompt");
        drop(release);
        assert_eq!(answer.await.status, 200);
        let grammar = server.engine.next_req().await.grammar.unwrap();
        assert_eq!(forced_after(&*grammar, ""), "</think>");
        assert!(holding.await.unwrap());
    });
}
