//! Tool calls in `/v1/chat/completions`, and `/parse_function_call`.

use serde_json::{Value, json};

use crate::support::{Server, tokenizer};

const PATH: &str = "/v1/chat/completions";

/// A call of `now` between two texts.
const CALL: &[&str] = &[
    "Let me ",
    "see.\n<tool_",
    "call>\n{\"name\": \"now\", \"arg",
    "uments\": {\"zone\"",
    ":\"CET\"}}\n</tool",
    "_call>",
];

fn now() -> Value {
    json!({"type": "function", "function": {"name": "now"}})
}

fn body(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "tools": [now()]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Takes the call's id out, which is different each time.
fn take_id(call: &mut Value) -> String {
    call["id"].take().as_str().unwrap().to_owned()
}

#[tokio::test]
async fn calls_of_an_answer() {
    let server = Server::parsing("none", "qwen25", CALL);
    let mut answer = server.post(PATH, body(json!({}))).await.json();
    let choice = &mut answer["choices"][0];
    let id = take_id(&mut choice["message"]["tool_calls"][0]);
    assert!(id.len() == 29 && id.starts_with("call_"), "{id}");
    let call = json!({"id": null, "index": 0, "type": "function",
                      "function": {"name": "now", "arguments": "{\"zone\": \"CET\"}"}});
    let message = json!({"role": "assistant", "content": "Let me see.",
                         "reasoning_content": null, "tool_calls": [call]});
    let expected = json!({"index": 0, "message": message, "logprobs": null,
                          "finish_reason": "tool_calls", "matched_stop": null});
    assert_eq!(*choice, expected);
    let prompt = tokenizer().decode(&server.engine.next_req().await.input_ids, false);
    let rendered =
        "[{\"type\": \"function\", \"function\": {\"name\": \"now\"}}]\n<|im_start|>user\n";
    assert!(prompt.starts_with(rendered), "{prompt}");
}

#[tokio::test]
async fn calls_in_a_stream() {
    let server = Server::parsing("none", "qwen25", CALL);
    let mut events = server.post(PATH, body(json!({"stream": true}))).await.events();
    assert!(take_id(&mut events[3]["choices"][0]["delta"]["tool_calls"][0]).starts_with("call_"));
    // Of what is not there only the reasoning is said so.
    let content = |text: &str| json!({"content": text, "reasoning_content": null});
    let calls = |calls: Value| json!({"reasoning_content": null, "tool_calls": calls});
    let piece = |name: Value, arguments: &str| {
        json!([{"id": null, "index": 0, "type": "function",
                "function": {"name": name, "arguments": arguments}}])
    };
    let deltas: Vec<_> = events.iter().map(|event| event["choices"][0]["delta"].clone()).collect();
    let expected = [
        json!({"role": "assistant", "content": "", "reasoning_content": null}),
        content("Let me"),
        content(" see."),
        calls(piece(json!("now"), "")),
        calls(piece(json!(null), "{\"zone\"")),
        calls(piece(json!(null), ": \"CET\"}")),
        json!({"reasoning_content": null}),
    ];
    assert_eq!(deltas, expected);
    let last = &events[6]["choices"][0];
    assert_eq!(
        (&last["finish_reason"], &last["matched_stop"]),
        (&json!("tool_calls"), &json!(257))
    );
}

#[tokio::test]
async fn text_without_calls_is_content() {
    let server = Server::parsing("none", "qwen25", &["No <tool", " needed. \n"]);
    for stream in [false, true] {
        let answer = server.post(PATH, body(json!({"stream": stream}))).await;
        let choices: Vec<_> = match stream {
            true => answer.events().iter().map(|event| event["choices"][0].clone()).collect(),
            false => vec![answer.json()["choices"][0].clone()],
        };
        let key = if stream { "delta" } else { "message" };
        let texts = choices.iter().filter_map(|choice| choice[key]["content"].as_str());
        assert_eq!(texts.collect::<String>(), "No <tool needed. \n");
        assert_eq!(choices.last().unwrap()["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn without_tools_or_with_none_nothing_is_parsed() {
    for more in [json!({"tools": []}), json!({"tools": null}), json!({"tool_choice": "none"})] {
        let server = Server::parsing("none", "qwen25", CALL);
        let answer = server.post(PATH, body(more)).await.json();
        let message = &answer["choices"][0]["message"];
        assert_eq!(
            (&message["content"], &message["tool_calls"]),
            (&json!(CALL.concat()), &json!(null))
        );
        let prompt = tokenizer().decode(&server.engine.next_req().await.input_ids, false);
        assert!(prompt.starts_with("<|im_start|>user\nHi"), "{prompt}");
    }
}

#[tokio::test]
async fn special_tokens_stay_where_calls_are_looked_for() {
    let pieces: &[&str] = &["a<|im_end|>b"];
    let server = Server::parsing("none", "qwen25", pieces);
    let content = |answer: Value| answer["choices"][0]["message"]["content"].clone();
    let with = server.post(PATH, body(json!({}))).await.json();
    assert_eq!(content(with), "a<|im_end|>b");
}

#[tokio::test]
async fn only_one_call_unless_they_may_be_parallel() {
    let pieces: &[&str] = &[
        "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1}}</tool_call>",
    ];
    let server = Server::parsing("none", "hermes", pieces);
    for (parallel, num_calls) in [(true, 2), (false, 1)] {
        let more = json!({"parallel_tool_calls": parallel});
        let answer = server.post(PATH, body(more)).await.json();
        let calls = answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().clone();
        let numbers: Vec<_> = calls.iter().map(|call| call["index"].clone()).collect();
        assert_eq!(numbers, [0, 1][..num_calls]);
        let more = json!({"parallel_tool_calls": parallel, "stream": true});
        let events = server.post(PATH, body(more)).await.events();
        let pieces = events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]);
        let names = pieces.clone().filter(|piece| piece["function"]["name"] == "now");
        assert_eq!(names.count(), num_calls);
        let arguments: Vec<_> =
            pieces.filter_map(|piece| piece["function"]["arguments"].as_str()).collect();
        let both = if parallel { "{}{\"a\": 1}" } else { "{}" };
        assert_eq!(arguments.concat(), both);
    }
}

#[tokio::test]
async fn kimi_numbers_its_calls_through_the_conversation() {
    let pieces: &[&str] = &["<|tool_calls_section_begin|><|tool_call_begin|>functions.now:7\
        <|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"];
    let server = Server::parsing("none", "kimi_k2", pieces);
    let earlier = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "functions.now:0", "type": "function",
         "function": {"name": "now", "arguments": "{\"a\": 1}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "functions.now:0",
                        "content": [{"type": "text", "text": "noon"}]});
    let body = body(json!({"messages": [earlier, result]}));
    let answer = server.post(PATH, body).await.json();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["id"], "functions.now:1");
    // Arguments are a value in the template, and a tool's result is a text.
    let prompt = tokenizer().decode(&server.engine.next_req().await.input_ids, false);
    assert!(prompt.contains("\"arguments\": {\"a\": 1}"), "{prompt}");
    assert!(prompt.contains("<|im_start|>tool\nnoon<|im_end|>"), "{prompt}");
}

#[tokio::test]
async fn choices_that_cannot_be_followed_are_refused_by_name() {
    let server = Server::parsing("none", "pythonic", CALL);
    let named = json!({"type": "function", "function": {"name": "then"}});
    let mut strict = now();
    strict["function"]["strict"] = json!(true);
    let mut nameless = now();
    nameless["function"].take();
    for (more, reason) in [
        (json!({"tool_choice": "required", "tools": []}), "Tools cannot be empty"),
        (json!({"tool_choice": "required", "regex": "a"}), "Calls and another grammar cannot"),
        (json!({"tool_choice": named}), "Tool 'then' not found in tools list."),
        (json!({"tool_choice": "any"}), "tool_choice must be auto, none or required"),
        (json!({"tools": [now(), strict]}), "tools[1].function.strict is not supported with the"),
        (json!({"tools": [nameless]}), "tools[0] has a function without a name"),
    ] {
        let answer = server.post(PATH, body(more)).await;
        assert_eq!(answer.status, 400);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(reason), "{message}");
    }
}

#[tokio::test]
async fn an_answer_that_must_call_is_a_list_of_calls() {
    let pieces = &["[{\"name\": \"now\", \"par", "ameters\": {\"zone\": \"CET\"}}]"];
    let server = Server::parsing("none", "qwen25", pieces);
    let named = json!({"type": "function", "function": {"name": "now"}});
    for choice in [json!("required"), named] {
        let answer = server.post(PATH, body(json!({"tool_choice": choice}))).await.json();
        let choice = &answer["choices"][0];
        let function = &choice["message"]["tool_calls"][0]["function"];
        assert_eq!(function["name"], "now");
        assert_eq!(function["arguments"], "{\"zone\": \"CET\"}");
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&json!(""), &json!("tool_calls"))
        );
        let mut grammar = server.engine.next_req().await.grammar.expect("a grammar");
        for token in pieces.concat().bytes().map(u32::from).chain([257]) {
            grammar.accept(token).unwrap();
        }
        assert!(grammar.is_terminated());
    }
}

#[tokio::test]
async fn function_calls_of_a_text() {
    let path = "/parse_function_call";
    let server = Server::parsing("none", "qwen25", &[]);
    let text = CALL.concat();
    let call = json!({"tool_index": 0, "name": "now", "parameters": "{\"zone\": \"CET\"}"});
    let expected = json!({"normal_text": "Let me see.", "calls": [call]});
    for parser in [json!("hermes"), json!(null)] {
        let body = json!({"text": text, "tools": [now()], "tool_call_parser": parser});
        assert_eq!(server.post(path, body).await.json(), expected);
    }
    let body = json!({"text": text, "tool_call_parser": "hermes"});
    assert_eq!(server.post(path, body).await.json(), json!({"normal_text": text, "calls": []}));
    for (parser, reason) in [
        (json!("nobody"), "unknown tool-call parser `nobody`; known: deepseekv3, "),
        (json!(null), "Name a tool_call_parser"),
    ] {
        let body = json!({"text": "x", "tools": [now()], "tool_call_parser": parser});
        let answer = Server::answering("x").post(path, body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text.contains(reason), "{}", answer.text);
    }
}
