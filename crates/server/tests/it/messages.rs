//! `/v1/messages`, Anthropic's dialect.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use types::FinishReason;

use crate::support::{Answer, Answered, FakeEngine, Server, config, tokenizer};

const PATH: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

fn body(more: Value) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let mut body = json!({"model": "m", "max_tokens": 50, "messages": messages});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The stream's events, whose names must be their types.
fn events(answer: &Answered) -> Vec<Value> {
    assert_eq!(answer.content_type, "text/event-stream; charset=utf-8", "{}", answer.text);
    let event = |frame: &str| {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    answer.text.split_terminator("\n\n").map(event).collect()
}

async fn prompt_of(server: &Server) -> String {
    tokenizer().decode(&server.engine.next_req().await.input_ids, false)
}

#[tokio::test]
async fn one_answer() {
    let server = Server::answering("Hello!");
    let more = json!({"system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind"}],
                      "temperature": 0.5, "top_k": 7, "metadata": {"user_id": "u"}});
    let mut answer = server.post(PATH, body(more)).await.json();
    assert!(answer["id"].take().as_str().unwrap().starts_with("msg_"));
    let cached = answer["usage"]["cache_read_input_tokens"].as_u64().unwrap() as usize;
    let input = answer["usage"]["input_tokens"].as_u64().unwrap() as usize;
    let usage = answer["usage"].take();
    assert_eq!(
        (&usage["output_tokens"], &usage["cache_creation_input_tokens"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(
        answer,
        json!({
            "id": null, "type": "message", "role": "assistant", "model": "m", "usage": null,
            "content": [{"type": "text", "text": "Hello!"}],
            "stop_reason": "end_turn", "stop_sequence": null,
        })
    );
    let req = server.engine.next_req().await;
    assert_eq!((req.input_ids.len(), req.input_ids.len() / 2), (cached + input, cached));
    let prompt = tokenizer().decode(&req.input_ids, false);
    assert_eq!(
        prompt,
        "<|im_start|>system\nBe\nkind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let params = req.sampling_params;
    assert_eq!((params.temperature, params.top_k, params.max_new_tokens), (0.5, 7, Some(50)));
}

#[tokio::test]
async fn a_stream_with_reasoning_text_and_a_call() {
    let pieces: &[&str] = &[
        "<think>Hm",
        "m.</think>",
        "See: ",
        "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\":",
        " \"CET\"}}\n</tool_call>",
    ];
    let server = Server::parsing("qwen3", "qwen25", pieces);
    let tools = json!([{"name": "now", "input_schema": {"type": "object"}}]);
    let answer = server.post(PATH, body(json!({"stream": true, "tools": tools}))).await;
    let mut events = events(&answer);
    let start = &events[0]["message"];
    assert_eq!((&start["content"], &start["stop_reason"]), (&json!([]), &json!(null)));
    assert_eq!(start["usage"]["output_tokens"], 0);
    assert!(events[0]["message"]["usage"]["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(events[1], json!({"type": "ping"}));
    let end = events.split_off(events.len() - 2);
    let stop = json!({"stop_reason": "tool_use", "stop_sequence": null});
    assert_eq!(end[0]["delta"], stop);
    assert_eq!(end[1], json!({"type": "message_stop"}));
    let mut blocks: Vec<(Value, String)> = Vec::new();
    let mut is_open = false;
    for event in &events[2..] {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(!is_open && event["index"] == blocks.len());
                blocks.push((event["content_block"].clone(), String::new()));
                is_open = true;
            }
            "content_block_delta" => {
                assert!(is_open && event["index"] == blocks.len() - 1);
                let delta = &event["delta"];
                let new = ["text", "thinking", "partial_json"].map(|key| delta[key].as_str());
                blocks.last_mut().unwrap().1 += new.into_iter().flatten().next().unwrap();
            }
            "content_block_stop" => is_open = false,
            other => panic!("{other}"),
        }
    }
    assert!(!is_open);
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    assert_eq!(blocks[0], (json!({"type": "thinking", "thinking": ""}), "Hmm.".to_owned()));
    assert_eq!(blocks[1], (json!({"type": "text", "text": ""}), "See:".to_owned()));
    let call = &blocks[2];
    assert_eq!((&call.0["type"], &call.0["name"]), (&json!("tool_use"), &json!("now")));
    assert_eq!(serde_json::from_str::<Value>(&call.1).unwrap(), json!({"zone": "CET"}));

    // The same as a whole.
    let whole = server.post(PATH, body(json!({"tools": tools}))).await.json();
    let content = whole["content"].as_array().unwrap();
    assert_eq!(content[0], json!({"type": "thinking", "thinking": "Hmm."}));
    assert_eq!(content[2]["input"], json!({"zone": "CET"}));
    assert_eq!(whole["stop_reason"], "tool_use");

    // Reasoning that is not to be shown is there, but empty.
    let more = json!({"thinking": {"type": "adaptive", "display": "omitted"}});
    let whole = server.post(PATH, body(more.clone())).await.json();
    assert_eq!(whole["content"][0], json!({"type": "thinking", "thinking": ""}));
    let stream =
        server.post(PATH, body(json!({"stream": true, "thinking": more["thinking"]}))).await;
    assert!(!stream.text.contains("Hm") && stream.text.contains(r#""type":"thinking""#));
}

#[tokio::test]
async fn a_conversation_with_tools_becomes_a_prompt() {
    let server = Server::answering("x");
    let messages = json!([
        {"role": "system", "content": "Later."},
        {"role": "user", "content": [{"type": "text", "text": "Time?", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "tool_use", "id": "t1", "name": "now", "input": {"zone": "CET", "a": 1}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "noon"}]},
            {"type": "text", "text": "So?"}]},
    ]);
    let answer = server.post(PATH, body(json!({"messages": messages, "system": "First."}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let prompt = prompt_of(&server).await;
    let turns: Vec<&str> = prompt.split("<|im_start|>").skip(1).collect();
    assert_eq!(turns[0], "system\nFirst.\nLater.<|im_end|>\n");
    assert_eq!(turns[1], "user\nTime?<|im_end|>\n");
    assert!(
        turns[2].starts_with("assistant\n")
            && turns[2].contains(r#""arguments": {"zone": "CET", "a": 1}"#),
        "{}",
        turns[2]
    );
    assert_eq!(turns[3], "tool\nnoon<|im_end|>\n");
    assert_eq!(turns[4], "user\nSo?<|im_end|>\n");
    assert_eq!(turns[5], "assistant\n");
}

#[tokio::test]
async fn an_answer_that_is_begun_goes_on() {
    let server = Server::answering("x");
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]);
    assert_eq!(server.post(PATH, body(json!({"messages": messages}))).await.status, 200);
    let prompt = prompt_of(&server).await;
    assert_eq!(prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell,");
}

#[tokio::test]
async fn why_it_stopped() {
    let server = Server::answering("one, two");
    let answer = server.post(PATH, body(json!({"stop_sequences": [","]}))).await.json();
    assert_eq!(answer["content"], json!([{"type": "text", "text": "one"}]));
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("stop_sequence"), &json!(","))
    );

    let answer = Answer::ids(&[97], FinishReason::Length { length: 1 });
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let answer = server.post(PATH, body(json!({"max_tokens": 1}))).await.json();
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("max_tokens"), &json!(null))
    );
}

#[tokio::test]
async fn tokens_are_counted_as_the_prompt_has_them() {
    let server = Server::answering("x");
    let system = json!({"system": "Be kind."});
    let mut counted = body(system.clone());
    counted.as_object_mut().unwrap().remove("max_tokens");
    let count = server.post(COUNT, counted).await.json();
    server.post(PATH, body(system)).await;
    assert_eq!(count, json!({"input_tokens": server.engine.next_req().await.input_ids.len()}));
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_anthropics_words() {
    let server = Server::answering("x");
    let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
    let misplaced = json!([{"role": "user", "content": [{"type": "thinking", "thinking": "Hm."}]}]);
    let search = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    for (more, name) in [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"model": null}), "string"),
        (json!({"messages": []}), "Messages"),
        (json!({"messages": image}), "image"),
        (json!({"messages": misplaced}), "thinking"),
        (json!({"tools": search}), "web_search_20250305"),
        (json!({"tools": [{"name": "f"}]}), "input_schema"),
        (
            json!({"tools": [{"name": "f", "input_schema": {}, "defer_loading": true}]}),
            "defer_loading",
        ),
        (json!({"tool_choice": {"type": "some"}}), "tool_choice"),
        (json!({"tool_choice": {"type": "tool"}}), "name"),
        (json!({"thinking": {"type": "some"}}), "thinking.type"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 5}}), "budget_tokens"),
        (json!({"thinking": {"type": "adaptive", "budget_tokens": 2048}}), "budget_tokens is only"),
        (json!({"thinking": {"type": "enabled", "display": "loud"}}), "display"),
        (json!({"output_config": {"task_budget": {"type": "tokens", "total": 5}}}), "task_budget"),
        (json!({"output_config": {"format": {"type": "xml"}}}), "unknown variant `xml`"),
        (json!({"output_config": {"format": {"type": "json_schema"}}}), "missing field `schema`"),
        (json!({"mcp_servers": [{"url": "u"}]}), "mcp_servers"),
        (json!({"top_p": 3}), "top_p"),
    ] {
        let answer = server.post(PATH, body(more.clone())).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text);
        let error = answer.json();
        assert_eq!(
            (&error["type"], &error["error"]["type"]),
            (&json!("error"), &json!("invalid_request_error"))
        );
        assert!(
            error["error"]["message"].as_str().unwrap().contains(name),
            "{more}: {}",
            answer.text
        );
    }
    server.state.begin_drain();
    let answer = server.post(PATH, body(json!({}))).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["type"]),
        (503, &json!("overloaded_error"))
    );
}

#[tokio::test]
async fn a_stream_that_breaks_closes_its_block() {
    let dead = Answer { dies: true, finish: None, ..Answer::pieces(&["ab"]) };
    let server = Server::new(FakeEngine::start(move |_| dead.clone()));
    let events = events(&server.post(PATH, body(json!({"stream": true}))).await);
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[kinds.len() - 2..], ["content_block_stop", "error"]);
    assert_eq!(events.last().unwrap()["error"]["type"], "api_error");
}

#[tokio::test]
async fn the_key_may_come_as_anthropics_clients_send_it() {
    let config = server::ServerConfig { api_key: Some("secret".to_owned()), ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    for (key, status) in [("secret", 200), ("wrong", 401)] {
        let request = Request::post(PATH)
            .header("content-type", "application/json")
            .header("x-api-key", key)
            .body(Body::from(body(json!({})).to_string()));
        assert_eq!(server.send(request.unwrap()).await.status, status);
    }
}
