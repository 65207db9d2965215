//! Fields that SGLang has and this server does not.

use protocol::{
    Field, Table, Unset,
    anthropic::MESSAGES_TABLE,
    native::{ENCODE_TABLE, GENERATE_TABLE, SAMPLING_TABLE},
    ollama,
    openai::{CHAT_TABLE, COMPLETION_TABLE, EMBEDDING_TABLE, SCORE_TABLE},
    responses::RESPONSES_TABLE,
};
use serde_json::{Value, json};
use types::Matryoshka;

use crate::{embeddings::embedder, support::Server};

/// A value that is not the field's default, and those that are.
fn values_of(field: &Field) -> (Option<Value>, Vec<Value>) {
    let (set, unset) = match field.unset {
        Unset::Empty => (Some(json!("x")), vec![json!(""), json!([]), json!({})]),
        Unset::Number(default) => (Some(json!(default + 0.5)), vec![json!(default)]),
        Unset::Bool(default) => (Some(json!(!default)), vec![json!(default)]),
        Unset::Strings(allowed) => {
            (Some(json!("other")), allowed.iter().map(|text| json!(text)).collect())
        }
        Unset::Type(default) => (Some(json!({"type": "other"})), vec![json!({"type": default})]),
        Unset::Any => (None, vec![json!(true), json!({"a": 1})]),
    };
    (set, [vec![json!(null)], unset].concat())
}

async fn check_table(path: &str, table: &Table, wrap: impl Fn(&str, Value) -> Value) {
    check_table_of(&Server::answering("x"), path, table, wrap).await;
}

async fn check_table_of(
    server: &Server,
    path: &str,
    table: &Table,
    wrap: impl Fn(&str, Value) -> Value,
) {
    for field in table.unsupported {
        let (set, unset) = values_of(field);
        if let Some(set) = set {
            let answer = server.post(path, wrap(field.name, set)).await;
            assert_eq!(answer.status, 400, "{path} {}", field.name);
            let name = format!("{}` is not supported by this server", field.name);
            assert!(answer.text.contains(&name), "{path} {}: {}", field.name, answer.text);
        }
        for value in unset {
            let answer = server.post(path, wrap(field.name, value.clone())).await;
            assert_eq!(answer.status, 200, "{path} {} {value}: {}", field.name, answer.text);
        }
    }
}

#[tokio::test]
async fn of_generate() {
    let wrap = |name: &str, value| json!({"text": "x", name: value});
    check_table("/generate", &GENERATE_TABLE, wrap).await;
}

#[tokio::test]
async fn of_vectors() {
    let server = Server::new(embedder(Matryoshka::No));
    let wrap = |name: &str, value| json!({"text": "x", name: value});
    check_table_of(&server, "/encode", &ENCODE_TABLE, wrap).await;
    let wrap = |name: &str, value| json!({"input": "x", name: value});
    check_table_of(&server, "/v1/embeddings", &EMBEDDING_TABLE, wrap).await;
}

#[tokio::test]
async fn of_scores() {
    let wrap = |name: &str, value| json!({"query": "q", "items": ["x"], "label_token_ids": [1], name: value});
    check_table("/v1/score", &SCORE_TABLE, wrap).await;
}

#[tokio::test]
async fn of_sampling_params() {
    let wrap = |name: &str, value| json!({"text": "x", "sampling_params": {name: value}});
    check_table("/generate", &SAMPLING_TABLE, wrap).await;
    let wrap = |name: &str, value| json!({"text": ["x"], "sampling_params": [{name: value}]});
    check_table("/generate", &SAMPLING_TABLE, wrap).await;
}

#[tokio::test]
async fn of_completions() {
    let wrap = |name: &str, value| json!({"prompt": "x", name: value});
    check_table("/v1/completions", &COMPLETION_TABLE, wrap).await;
}

#[tokio::test]
async fn of_chat() {
    let wrap =
        |name: &str, value| json!({"messages": [{"role": "user", "content": "x"}], name: value});
    check_table("/v1/chat/completions", &CHAT_TABLE, wrap).await;
}

#[tokio::test]
async fn of_other_dialects() {
    let messages = json!([{"role": "user", "content": "x"}]);
    let body = |name: &str, value| json!({"model": "m", "messages": messages, "max_tokens": 9, name: value});
    check_table("/v1/messages", &MESSAGES_TABLE, body).await;
    check_table("/api/chat", &ollama::CHAT_TABLE, body).await;
    let options = |name: &str, value| body("options", json!({name: value}));
    let nested = ollama::CHAT_TABLE.nested.iter().find(|(name, _)| *name == "options").unwrap();
    check_table("/api/chat", nested.1, options).await;
    let body = |name: &str, value| json!({"model": "m", "prompt": "x", name: value});
    check_table("/api/generate", &ollama::GENERATE_TABLE, body).await;
    let body = |name: &str, value| json!({"input": "x", name: value});
    check_table("/v1/responses", &RESPONSES_TABLE, body).await;
}

/// Names of refused fields, those of objects inside with their paths.
fn refused_names(table: &Table, path: &str) -> Vec<String> {
    let own = table.unsupported.iter().map(|field| format!("{path}{}", field.name));
    let inside = table
        .nested
        .iter()
        .flat_map(|(name, table)| refused_names(table, &format!("{path}{name}.")));
    own.chain(inside).collect()
}

#[test]
fn the_page_of_fields_names_what_is_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compat/fields.md");
    let page = std::fs::read_to_string(path).unwrap();
    for (route, table) in [
        ("/generate", &GENERATE_TABLE),
        ("/v1/completions", &COMPLETION_TABLE),
        ("/v1/chat/completions", &CHAT_TABLE),
        ("/v1/responses", &RESPONSES_TABLE),
        ("/v1/messages", &MESSAGES_TABLE),
        ("/api/chat", &ollama::CHAT_TABLE),
        ("/api/generate", &ollama::GENERATE_TABLE),
        ("/v1/embeddings", &EMBEDDING_TABLE),
        ("/encode", &ENCODE_TABLE),
        ("/v1/score", &SCORE_TABLE),
    ] {
        let (_, section) = page.split_once(&format!("## `{route}`\nRefused: ")).unwrap();
        let (list, _) = section.split_once("\n\n").unwrap();
        let listed: Vec<_> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let mut names = refused_names(table, "");
        names.sort();
        assert_eq!(listed, names, "{route} in docs/compat/fields.md");
    }
}

#[tokio::test]
async fn every_supported_sampling_parameter_is_taken() {
    let server = Server::answering("x");
    let params = json!({
        "max_new_tokens": 4, "min_new_tokens": 1, "stop": ["a"], "stop_regex": "[0-9]", "stop_token_ids": [5, null],
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "n": 1, "ignore_eos": true,
        "skip_special_tokens": false, "spaces_between_special_tokens": false, "no_stop_trim": true, "stream_interval": 2,
        "sampling_seed": 3, "frequency_penalty": 1.0, "presence_penalty": 1.0,
        "repetition_penalty": 1.2, "logit_bias": {"5": 1.5},
        "regex": "a+", "ebnf": "", "json_schema": null, "structural_tag": null,
        "custom_params": {"thinking_budget": -1},
    });
    let mut names: Vec<_> = params.as_object().unwrap().keys().cloned().collect();
    let mut supported = SAMPLING_TABLE.supported.unwrap().to_vec();
    names.sort();
    supported.sort_unstable();
    assert_eq!(names, supported);
    let answer = server.post("/generate", json!({"text": "x", "sampling_params": params})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let req = server.engine.next_req().await;
    assert!(req.grammar.is_some());
    let params = req.sampling_params;
    assert_eq!((params.max_new_tokens, params.min_new_tokens), (Some(4), 1));
    assert_eq!(params.stop_token_ids, [5]);
    assert_eq!((params.temperature, params.top_p, params.top_k), (0.5, 0.9, 5));
    assert_eq!((params.min_p, params.ignore_eos), (0.1, true));
    assert_eq!(params.sampling_seed, Some(3));
}

/// What gateways add to a body, all at their defaults or unknown to SGLang.
#[tokio::test]
async fn bodies_of_gateways_pass() {
    let server = Server::answering("x");
    let generate = json!({
        "text": "x", "model": null, "stream": false, "return_logprob": false, "lora_path": null,
        "return_routed_experts": false, "logprob_start_len": -1, "log_metrics": true,
        "bootstrap_host": null, "session_params": null, "image_data": null, "rid": null,
        "sampling_params": {"no_stop_trim": false, "skip_special_tokens": true, "regex": null,
                            "spaces_between_special_tokens": true, "frequency_penalty": 0.0},
    });
    assert_eq!(server.post("/generate", generate).await.status, 200);
    let chat = json!({
        "messages": [{"role": "user", "content": "x", "name": null}], "model": "unknown",
        "separate_reasoning": true, "stream_reasoning": true, "tools": null, "tool_choice": "auto",
        "parallel_tool_calls": true, "logprobs": false, "top_logprobs": null, "user": "someone",
        "response_format": {"type": "text"}, "metadata": {"a": "b"}, "store": false,
    });
    assert_eq!(server.post("/v1/chat/completions", chat).await.status, 200);
}
