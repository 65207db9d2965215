//! Reasoning in `/v1/chat/completions`, and `/separate_reasoning`.

use serde_json::{Value, json};
use server::{AnswerParsers, AppState, ServerConfig};
use tokenizer::ChatTemplate;

use crate::support::{Answer, FakeEngine, Server, config, tokenizer};

const PATH: &str = "/v1/chat/completions";

const THOUGHT: &[&str] = &["<thi", "nk>I th", "ink.</", "think>So: ", "yes."];

fn body(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Reasoning and content of each delta that has some.
async fn deltas(server: &Server, more: Value) -> Vec<(Option<String>, Option<String>)> {
    let events = server.post(PATH, body(more)).await.events();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let deltas = events.iter().map(|event| {
        let delta = &event["choices"][0]["delta"];
        (text(&delta["reasoning_content"]), text(&delta["content"]))
    });
    deltas.filter(|delta| *delta != (None, None)).collect()
}

fn thought(text: &str) -> (Option<String>, Option<String>) {
    (Some(text.to_owned()), None)
}

fn said(text: &str) -> (Option<String>, Option<String>) {
    (None, Some(text.to_owned()))
}

#[tokio::test]
async fn reasoning_of_an_answer() {
    let server = Server::parsing("qwen3", "none", THOUGHT);
    let answer = server.post(PATH, body(json!({}))).await.json();
    let message = json!({"role": "assistant", "content": "So: yes.",
                         "reasoning_content": "I think."});
    assert_eq!(answer["choices"][0]["message"], message);
    let usage = &answer["usage"];
    // A token a byte, the end of the reasoning included; then the text and EOS.
    let num_thought = "<think>I think.</think>".len();
    assert_eq!(usage["reasoning_tokens"], num_thought);
    assert_eq!(usage["completion_tokens"], num_thought + "So: yes.".len() + 1);
}

#[tokio::test]
async fn reasoning_of_a_completion_is_counted_if_it_is_required() {
    let server = Server::parsing("qwen3", "none", THOUGHT);
    let num_thought = "<think>I think.</think>".len();
    for (required, count) in [(json!(true), num_thought), (json!(false), 0), (json!(null), 0)] {
        let body = json!({"text": "x", "require_reasoning": required});
        let answer = server.post("/generate", body).await.json();
        assert_eq!(answer["meta_info"]["reasoning_tokens"], count, "{required}");
    }
    let body = json!({"text": "x", "require_reasoning": true, "stream": true});
    let events = server.post("/generate", body).await.events();
    let counts: Vec<_> =
        events.iter().map(|e| e["meta_info"]["reasoning_tokens"].clone()).collect();
    assert!(counts[0] == 1 || counts[0].as_u64() < counts.last().unwrap().as_u64(), "{counts:?}");
    assert_eq!(*counts.last().unwrap(), num_thought);
}

#[tokio::test]
async fn reasoning_in_a_stream() {
    let server = Server::parsing("qwen3", "none", THOUGHT);
    let pieces = deltas(&server, json!({"stream": true})).await;
    assert_eq!(pieces, [thought("I th"), thought("ink."), said("So: "), said("yes.")]);
    let pieces = deltas(&server, json!({"stream": true, "stream_reasoning": false})).await;
    assert_eq!(pieces, [thought("I think."), said("So: "), said("yes.")]);
    let pieces = deltas(&server, json!({"stream": true, "separate_reasoning": false})).await;
    let contents: Vec<_> = pieces.into_iter().filter_map(|(_, content)| content).collect();
    assert_eq!(contents, THOUGHT);
}

#[tokio::test]
async fn the_request_says_whether_the_prompt_began_it() {
    let server = Server::parsing("qwen3", "none", &["I think.</think>Yes."]);
    for (kwargs, reasoning, content) in [
        (json!({}), json!("I think."), "Yes."),
        (json!({"enable_thinking": true}), json!("I think."), "Yes."),
        (json!({"enable_thinking": false}), json!(null), "I think.</think>Yes."),
    ] {
        let body = body(json!({"chat_template_kwargs": kwargs}));
        let answer = server.post(PATH, body).await.json();
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["reasoning_content"], reasoning, "{kwargs}");
        assert_eq!(message["content"], content, "{kwargs}");
        let counted = answer["usage"]["reasoning_tokens"].as_u64().unwrap();
        assert_eq!(counted > 0, !reasoning.is_null(), "{kwargs}");
    }
}

#[tokio::test]
async fn a_guess_waits_for_the_prompt_or_the_model_to_open_it() {
    let template = "{{ messages[0].content }}{# <think> #}";
    let tokenizer = tokenizer();
    let template = ChatTemplate::new(template, tokenizer.special_tokens().clone()).unwrap();
    let parsers = AnswerParsers::choose("auto", "auto", Some(&template), &tokenizer).unwrap();
    assert_eq!(parsers.reasoning.map(|entry| entry.name), Some("deepseek-r1"));
    let config = ServerConfig { parsers, ..config() };
    let engine = FakeEngine::start(|_| Answer::text("Hm.</think>Yes."));
    let state = AppState::new(config, engine.handle(), tokenizer, Some(template));
    let server = Server::of_state(state, engine);
    for (prompt, reasoning) in [("Hi", json!(null)), ("Hi<think>\n", json!("Hm."))] {
        let body = json!({"messages": [{"role": "user", "content": prompt}]});
        let answer = server.post(PATH, body).await.json();
        assert_eq!(answer["choices"][0]["message"]["reasoning_content"], reasoning, "{prompt}");
    }
}

#[tokio::test]
async fn a_call_after_reasoning() {
    let pieces: &[&str] =
        &["Hm.</think>\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"];
    let server = Server::parsing("qwen3", "qwen", pieces);
    let tool = json!({"type": "function", "function": {"name": "now"}});
    let answer = server.post(PATH, body(json!({"tools": [tool]}))).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!(""), &json!("Hm.")));
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "now", "arguments": "{}"}));
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn harmony_with_a_call() {
    // What ends the answer is a stop token and not in the text.
    let pieces: &[&str] = &[
        "<|channel|>analysis<|mess",
        "age|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.now ",
        "<|constrain|>json<|message|>{\"a\":1}",
    ];
    let server = Server::parsing("gpt-oss", "gpt-oss", pieces);
    let tool = json!({"type": "function", "function": {"name": "now"}});
    let answer = server.post(PATH, body(json!({"tools": [tool]}))).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!(""), &json!("Hm.")));
    let called = json!({"name": "now", "arguments": "{\"a\": 1}"});
    assert_eq!(message["tool_calls"][0]["function"], called);
}

#[tokio::test]
async fn the_effort_is_a_variable_of_the_template() {
    let server = Server::parsing("none", "none", &["x"]);
    server.post(PATH, body(json!({"reasoning_effort": "low"}))).await;
    let prompt = tokenizer().decode(&server.engine.next_req().await.input_ids, false);
    assert!(prompt.starts_with("low effort\n"), "{prompt}");
    let messages = json!([{"role": "user", "content": "Hi"}]);
    for (effort, words) in [(json!(0.5), "0.5 effort\n"), (json!("max"), "max effort\n")] {
        let body = json!({"messages": messages, "reasoning_effort": effort});
        let tokens = server.post("/tokenize", body).await.json()["tokens"].clone();
        let ids: Vec<u32> = serde_json::from_value(tokens).unwrap();
        assert!(tokenizer().decode(&ids, false).starts_with(words));
    }
    let refused = server.post(PATH, body(json!({"reasoning_effort": "lots"}))).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("reasoning_effort must be one of none,"), "{}", refused.text);
}

#[tokio::test]
async fn an_effort_of_none_turns_reasoning_off() {
    // By the parser the answer begins with reasoning, unless the switch is off.
    let server = Server::parsing("qwen3", "none", &["Hm.</think>Yes."]);
    for (more, reasoning) in [
        (json!({}), json!("Hm.")),
        (json!({"reasoning_effort": "high"}), json!("Hm.")),
        (json!({"reasoning_effort": "none"}), json!(null)),
        (json!({"reasoning": {"effort": "none"}}), json!(null)),
        (json!({"thinking": {"type": "disabled"}}), json!(null)),
        (json!({"thinking": {"type": "enabled"}}), json!("Hm.")),
    ] {
        let answer = server.post(PATH, body(more.clone())).await.json();
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["reasoning_content"], reasoning, "{more}: {message}");
        let is_counted = !answer["usage"]["completion_tokens_details"].is_null();
        assert_eq!(is_counted, !reasoning.is_null(), "{more}: {}", answer["usage"]);
    }
}

#[tokio::test]
async fn reasoning_of_a_text() {
    let path = "/separate_reasoning";
    let server = Server::answering("x");
    let body = json!({"text": "Hm.</think>Yes.", "reasoning_parser": "deepseek-r1"});
    let answer = server.post(path, body).await.json();
    assert_eq!(answer, json!({"reasoning_text": "Hm.", "text": "Yes."}));
    let body = json!({"text": "Yes.", "reasoning_parser": "qwen3", "return_blocks": true});
    let expected = json!({"reasoning_text": "", "text": "Yes.", "reasoning_blocks": [],
        "text_blocks": ["Yes."], "blocks": [{"type": "text", "text": "Yes."}]});
    assert_eq!(server.post(path, body).await.json(), expected);
    let answer = server.post(path, json!({"text": "x", "reasoning_parser": "nobody"})).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("unknown reasoning parser `nobody`; known: "), "{}", answer.text);
}

#[tokio::test]
async fn parsers_are_chosen_by_the_chat_template() {
    let tokenizer = tokenizer();
    let template = |text| ChatTemplate::new(text, tokenizer.special_tokens().clone()).unwrap();
    let choose = |reasoning, tool_call, text| {
        AnswerParsers::choose(reasoning, tool_call, Some(&template(text)), &tokenizer).unwrap()
    };
    let qwen = "{% if enable_thinking is defined and enable_thinking is false %}x{% endif %}";
    let found = choose("auto", "auto", qwen);
    assert_eq!(found.reasoning.map(|entry| entry.name), Some("qwen3"));
    assert_eq!(found.tool_call.map(|entry| entry.name), Some("qwen"));
    let found = choose("none", "mistral", qwen);
    assert_eq!(found.reasoning, None);
    assert_eq!(found.tool_call.map(|entry| entry.name), Some("mistral"));
    // A parser that we do not have, and a template that asks for none.
    assert_eq!(choose("auto", "auto", "{# <|iquest_assistant|> #}"), AnswerParsers::default());
    assert_eq!(choose("auto", "auto", "x"), AnswerParsers::default());
    assert!(AnswerParsers::choose("auto", "x", None, &tokenizer).is_err());

    let parsers = choose("auto", "auto", qwen);
    let config = ServerConfig { parsers, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    let info = server.get("/model_info").await.json();
    assert_eq!(
        (&info["reasoning_parser"], &info["tool_call_parser"]),
        (&json!("qwen3"), &json!("qwen"))
    );
}
