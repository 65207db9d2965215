//! `/api/...`, Ollama's dialect.

use serde_json::{Value, json};
use types::FinishReason;

use crate::support::{Answer, Answered, FakeEngine, Server, tokenizer};

const CHAT: &str = "/api/chat";
const GENERATE: &str = "/api/generate";

fn chat(more: Value) -> Value {
    merged(json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}), more)
}

fn merged(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The lines of a stream; all but the last are not done.
fn lines(answer: &Answered) -> Vec<Value> {
    assert_eq!(answer.content_type, "application/x-ndjson", "{}", answer.text);
    assert!(answer.text.ends_with('\n'));
    let lines: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, others) = lines.split_last().unwrap();
    assert!(last["done"] == true && others.iter().all(|line| line["done"] == false));
    lines
}

/// Takes out what changes from run to run.
fn take_times(answer: &mut Value) {
    let created = answer["created_at"].take();
    assert!(
        created.as_str().unwrap().starts_with("20") && created.as_str().unwrap().ends_with('Z')
    );
    let times = ["total_duration", "prompt_eval_duration", "eval_duration"];
    let [total, prompt, eval] = times.map(|key| answer[key].take().as_u64().unwrap());
    assert!(total > 0 && total == prompt + eval);
}

async fn prompt_of(server: &Server) -> String {
    tokenizer().decode(&server.engine.next_req().await.input_ids, false)
}

#[tokio::test]
async fn one_answer() {
    let server = Server::answering("Hello!");
    let options = json!({"temperature": 0.5, "top_k": 0, "top_p": 0.9, "min_p": 0.1, "seed": 7,
                         "num_predict": 20, "repeat_penalty": 1.1, "presence_penalty": 0.5,
                         "frequency_penalty": 0.25, "num_ctx": 256});
    let body = chat(json!({"stream": false, "options": options, "keep_alive": "5m"}));
    let mut answer = server.post(CHAT, body).await.json();
    take_times(&mut answer);
    let req = server.engine.next_req().await;
    assert_eq!(
        answer,
        json!({
            "model": "tiny", "created_at": null, "done": true, "done_reason": "stop",
            "message": {"role": "assistant", "content": "Hello!"},
            "total_duration": null, "load_duration": 0, "prompt_eval_count": req.input_ids.len(),
            "prompt_eval_duration": null, "eval_count": 7, "eval_duration": null,
        })
    );
    let params = req.sampling_params;
    assert_eq!((params.temperature, params.top_p, params.min_p), (0.5, 0.9, 0.1));
    assert_eq!((params.top_k, params.sampling_seed), (types::TOP_K_ALL, Some(7)));
    assert_eq!(params.max_new_tokens, Some(20));
    let penalties = params.penalties;
    assert_eq!((penalties.repetition, penalties.presence, penalties.frequency), (1.1, 0.5, 0.25));
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
    let function = json!({"name": "now", "parameters": {"type": "object"}});
    let tools = json!([{"type": "function", "function": function}]);
    let lines = lines(&server.post(CHAT, chat(json!({"tools": tools, "think": true}))).await);
    let text = |key: &str| -> String {
        lines.iter().filter_map(|line| line["message"][key].as_str()).collect()
    };
    assert_eq!((text("thinking"), text("content")), ("Hmm.".to_owned(), "See:".to_owned()));
    let calls: Vec<&Value> =
        lines.iter().map(|line| &line["message"]["tool_calls"]).filter(|c| c.is_array()).collect();
    let call = json!([{"function": {"name": "now", "arguments": {"zone": "CET"}}}]);
    assert_eq!(calls, [&call]);
    let last = lines.last().unwrap();
    assert_eq!((&last["done_reason"], &last["message"]["content"]), (&json!("stop"), &json!("")));
    assert!(last["eval_count"].as_u64().unwrap() > 0);

    let whole = server.post(CHAT, chat(json!({"tools": tools, "stream": false}))).await.json();
    assert_eq!(
        (&whole["message"]["tool_calls"], &whole["message"]["thinking"]),
        (&call, &json!("Hmm."))
    );
}

#[tokio::test]
async fn a_conversation_becomes_a_prompt() {
    let server = Server::answering("x");
    let call = json!({"function": {"name": "now", "arguments": {"zone": "CET"}}});
    let messages = json!([
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_name": "now"},
    ]);
    let body = chat(json!({"messages": messages, "think": "high"}));
    assert_eq!(server.post(CHAT, body).await.status, 200);
    let prompt = prompt_of(&server).await;
    assert!(prompt.starts_with("high effort\n<|im_start|>user\nTime?"), "{prompt}");
    assert!(prompt.contains(r#""arguments": {"zone": "CET"}"#), "{prompt}");
    assert!(prompt.ends_with("tool\nnoon<|im_end|>\n<|im_start|>assistant\n"), "{prompt}");
}

#[tokio::test]
async fn a_prompt_goes_through_the_template_unless_it_is_raw() {
    let server = Server::answering("ab");
    let body = json!({"model": "m", "prompt": "Hi", "system": "Be kind."});
    let lines = lines(&server.post(GENERATE, body.clone()).await);
    let text: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!(text, "ab");
    assert!(lines.iter().all(|line| line.get("message").is_none()));
    let turns = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n";
    assert_eq!(prompt_of(&server).await, format!("{turns}<|im_start|>assistant\n"));

    let whole = server.post(GENERATE, merged(body, json!({"raw": true, "stream": false}))).await;
    assert_eq!(whole.json()["response"], "ab");
    assert_eq!(prompt_of(&server).await, "Be kind.\n\nHi");
}

#[tokio::test]
async fn nothing_to_answer_is_a_question_for_the_model() {
    let server = Server::answering("x");
    let answer = server.post(CHAT, chat(json!({"messages": []}))).await.json();
    assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("load")));
    assert_eq!(answer["message"], json!({"role": "assistant", "content": ""}));
    let answer = server.post(GENERATE, json!({"model": "m"})).await.json();
    assert_eq!((&answer["response"], &answer["done_reason"]), (&json!(""), &json!("load")));
}

#[tokio::test]
async fn lengths_and_stop_strings_end_it() {
    let server = Server::answering("one, two");
    let body = chat(json!({"options": {"stop": [","]}, "stream": false}));
    let answer = server.post(CHAT, body).await.json();
    assert_eq!(
        (&answer["message"]["content"], &answer["done_reason"]),
        (&json!("one"), &json!("stop"))
    );
    let answer = Answer::ids(&[97], FinishReason::Length { length: 1 });
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let lines = lines(&server.post(CHAT, chat(json!({"options": {"num_predict": 1}}))).await);
    assert_eq!(lines.last().unwrap()["done_reason"], "length");
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_ollamas_words() {
    let server = Server::answering("x");
    let image = json!([{"role": "user", "content": "Hi", "images": ["AAAA"]}]);
    for (more, name) in [
        (json!({"model": null}), "string"),
        (json!({"messages": image}), "images"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"format": "xml"}), "format must be json or a JSON schema, not \"xml\"."),
        (json!({"format": [1]}), "`json` or a JSON schema"),
        (json!({"format": {"type": "nothing"}}), "Failed to compile json_schema grammar"),
        (json!({"options": {"num_ctx": 257}}), "num_ctx"),
        (json!({"options": {"mirostat": 2}}), "mirostat"),
        (json!({"options": {"num_gpu": 1}}), "num_gpu"),
        (json!({"options": {"warmth": 1}}), "warmth"),
        (json!({"options": {"top_p": 3}}), "top_p"),
    ] {
        let answer = server.post(CHAT, chat(more.clone())).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(name), "{more}: {error}");
    }
    for name in ["suffix", "template", "context", "images"] {
        let body = json!({"model": "m", "prompt": "a", name: if name == "suffix" { json!("b") } else { json!([1]) }});
        let answer = server.post(GENERATE, body).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.text.contains(name), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_says_why() {
    let dead = Answer { dies: true, finish: None, ..Answer::pieces(&["ab"]) };
    let server = Server::new(FakeEngine::start(move |_| dead.clone()));
    let answer = server.post(CHAT, chat(json!({}))).await;
    let last: Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"error": "The engine stopped."}));
}

#[tokio::test]
async fn what_there_is_to_talk_to() {
    let server = Server::parsing("qwen3", "none", &["x"]);
    let tags = server.get("/api/tags").await.json();
    let model = &tags["models"][0];
    assert_eq!((&model["name"], &model["size"]), (&json!("tiny"), &json!(1 << 30)));
    assert_eq!(model["details"]["family"], "llama");
    let shown = server.post("/api/show", json!({"model": "tiny"})).await.json();
    assert_eq!(shown["model_info"]["llama.context_length"], 256);
    assert_eq!(shown["capabilities"], json!(["completion", "thinking"]));
    assert!(shown["template"].as_str().unwrap().contains("<|im_start|>"));
    assert_eq!(server.get("/api/version").await.json(), json!({"version": "1.2.3"}));
    assert_eq!(server.post("/api/show", json!({})).await.status, 400);
}
