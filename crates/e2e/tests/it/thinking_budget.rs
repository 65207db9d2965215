//! Reasoning cut off, with a template that makes the model think.

use serde_json::{Value, json};
use test_kit::{Client, EventStream, ServerProcess};

/// The model has no word for it: several tokens have to come in a row.
const END: &str = "</think>";
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}<|im_start|>assistant\n<think>\n";

fn thinking_server() -> ServerProcess {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("think.jinja");
    std::fs::write(&template, TEMPLATE).unwrap();
    let template = template.to_str().unwrap();
    // Room for two requests of 90 tokens, of which four are admitted.
    let memory = ["--max-total-tokens", "192", "--schedule-conservativeness", "0.1"];
    let text = ["--reasoning-parser", "qwen3", "--chat-template", template];
    e2e::start(&[memory, text].concat()).unwrap()
}

fn chat(client: &Client, more: Value) -> Value {
    let messages = json!([{ "role": "user", "content": "Why is the sky blue?" }]);
    let mut body = json!({ "messages": messages, "temperature": 0, "max_tokens": 60 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = client.post("/v1/chat/completions", &body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn budget(num_tokens: u64) -> Value {
    json!({ "custom_params": { "thinking_budget": num_tokens } })
}

#[test]
fn a_budget_cuts_reasoning_to_the_token() {
    let server = thinking_server();
    let client = server.client();
    let end: Vec<u64> = {
        let body = json!({ "prompt": END, "add_special_tokens": false });
        let tokens = client.post("/tokenize", &body).unwrap().json()["tokens"].clone();
        tokens.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
    };
    assert!(end.len() > 1, "{end:?}");
    let num_end = end.len() as u64;

    let free = chat(&client, json!({}));
    assert_eq!(free["usage"]["reasoning_tokens"], 60, "it thinks as long as it may");
    let thought = |answer: &Value| {
        answer["choices"][0]["message"]["reasoning_content"].as_str().unwrap_or_default().to_owned()
    };
    let cut = chat(&client, budget(12));
    assert_eq!(cut["usage"]["reasoning_tokens"], 12 + num_end);
    assert!(thought(&free).starts_with(&thought(&cut)) && !thought(&cut).is_empty(), "{cut}");
    assert!(!cut["choices"][0]["message"]["content"].as_str().unwrap().is_empty(), "{cut}");
    assert_eq!(chat(&client, budget(0))["usage"]["reasoning_tokens"], num_end);

    // What follows is up to a grammar, for each sample.
    let mut more = json!({ "regex": "(yes|no)!", "n": 3, "temperature": 1.5, "seed": 5 });
    more.as_object_mut().unwrap().extend(budget(9).as_object().unwrap().clone());
    let answer = chat(&client, more);
    assert_eq!(answer["usage"]["reasoning_tokens"], 3 * (9 + num_end));
    for choice in answer["choices"].as_array().unwrap() {
        let content = choice["message"]["content"].as_str().unwrap();
        assert!(["yes!", "no!"].contains(&content), "{choice}");
    }

    every_one_is_cut_although_some_start_over(&client, &end);
}

/// Together they need more pages than there are.
fn every_one_is_cut_although_some_start_over(client: &Client, end: &[u64]) {
    let begun = |index: u64| -> EventStream {
        let body = json!({
            "text": format!("Question {index}: why? <think>"), "max_thinking_tokens": 30 + index,
            "sampling_params": { "temperature": 0, "max_new_tokens": 80, "ignore_eos": true },
            "stream": true,
        });
        let mut events = client.stream("/generate", &body).unwrap();
        events.next().unwrap().unwrap();
        events
    };
    let streams: Vec<EventStream> = (0..4).map(begun).collect();
    let mut num_retractions = 0;
    for (index, events) in streams.into_iter().enumerate() {
        let answer = events.collect_data().unwrap().pop().unwrap();
        let ids: Vec<u64> = serde_json::from_value(answer["output_ids"].clone()).unwrap();
        let thought = 30 + index;
        assert_eq!(ids[thought..thought + end.len()], *end, "{index}");
        assert_eq!(ids.len(), 80);
        num_retractions += answer["meta_info"]["num_retractions"].as_u64().unwrap();
    }
    assert!(num_retractions > 0, "nothing was retracted");
}
