//! `/v1/responses`.

use serde_json::{Value, json};
use types::FinishReason;

use crate::support::{Answer, Answered, FakeEngine, Seen, Server, tokenizer};

const PATH: &str = "/v1/responses";

fn body(more: Value) -> Value {
    let mut body = json!({"model": "m", "input": "Hi"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The stream's events, whose names must be their types and whose numbers in order.
fn events(answer: &Answered) -> Vec<Value> {
    assert_eq!(answer.content_type, "text/event-stream; charset=utf-8", "{}", answer.text);
    let event = |(number, frame): (usize, &str)| {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        assert_eq!(data["sequence_number"], number);
        data
    };
    answer.text.split_terminator("\n\n").enumerate().map(event).collect()
}

async fn prompt_of(server: &Server) -> String {
    loop {
        if let Seen::Generate(req) = server.engine.next_seen().await {
            return tokenizer().decode(&req.input_ids, false);
        }
    }
}

fn take_id(value: &mut Value, prefix: &str) -> String {
    let id = value["id"].take().as_str().unwrap().to_owned();
    assert!(id.starts_with(prefix), "{id}");
    id
}

#[tokio::test]
async fn one_answer() {
    let server = Server::answering("Hello!");
    let more = json!({"instructions": "Be kind.", "temperature": 0.5, "max_output_tokens": 50,
                      "metadata": {"a": "b"}, "user": "u", "truncation": "disabled"});
    let mut answer = server.post(PATH, body(more)).await.json();
    take_id(&mut answer, "resp_");
    take_id(&mut answer["output"][0], "msg_");
    assert!(answer["created_at"].take().as_u64().unwrap() > 0);
    let Seen::Generate(req) = server.engine.next_seen().await else { panic!("no request") };
    let prompt_tokens = req.input_ids.len();
    assert_eq!(
        answer,
        json!({
            "id": null, "object": "response", "created_at": null, "model": "m", "status": "completed",
            "output": [{"type": "message", "id": null, "role": "assistant", "status": "completed",
                        "content": [{"type": "output_text", "text": "Hello!", "annotations": [],
                                     "logprobs": []}]}],
            "usage": {"input_tokens": prompt_tokens,
                      "input_tokens_details": {"cached_tokens": prompt_tokens / 2,
                                               "cache_write_tokens": 0},
                      "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 0},
                      "total_tokens": prompt_tokens + 7},
            "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "error": null,
            "incomplete_details": null, "instructions": "Be kind.", "max_output_tokens": 50,
            "previous_response_id": null, "reasoning": null, "store": true, "background": false,
            "temperature": 0.5, "text": {"format": {"type": "text"}}, "top_p": null,
            "truncation": "disabled", "user": "u", "metadata": {"a": "b"},
        })
    );
    assert_eq!(
        (req.sampling_params.temperature, req.sampling_params.max_new_tokens),
        (0.5, Some(50))
    );
}

/// Reasoning, text and a call.
const PIECES: &[&str] = &[
    "<think>Hm",
    "m.</think>",
    "See: ",
    "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\":",
    " \"CET\"}}\n</tool_call>",
];

#[tokio::test]
async fn a_stream_with_reasoning_text_and_a_call() {
    let server = Server::parsing("qwen3", "qwen25", PIECES);
    let tools = json!([{"type": "function", "name": "now", "parameters": {"type": "object"},
                        "strict": false}]);
    let events = events(&server.post(PATH, body(json!({"stream": true, "tools": tools}))).await);
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events[1]["type"], "response.in_progress");
    assert_eq!(events[1]["response"]["status"], "in_progress");
    let last = &events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.completed"), &json!("completed"))
    );
    let output = last["response"]["output"].as_array().unwrap();
    let kinds: Vec<_> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(output[0]["content"], json!([{"type": "reasoning_text", "text": "Hmm."}]));
    assert_eq!(output[1]["content"][0]["text"], "See:");
    assert_eq!((&output[2]["name"], &output[2]["status"]), (&json!("now"), &json!("completed")));
    let arguments = output[2]["arguments"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(arguments).unwrap(), json!({"zone": "CET"}));

    // Item by item: it begins, grows and ends.
    for (index, item) in output.iter().enumerate() {
        let of_item: Vec<&Value> = events.iter().filter(|e| e["output_index"] == index).collect();
        let kind =
            |e: &Value| e["type"].as_str().unwrap().trim_start_matches("response.").to_owned();
        assert_eq!(kind(of_item[0]), "output_item.added");
        assert_eq!(of_item[0]["item"]["id"], item["id"]);
        let (end, _) = of_item.split_last().unwrap();
        assert_eq!((kind(end), &end["item"]), ("output_item.done".to_owned(), item));
        let deltas = of_item.iter().filter_map(|e| e["delta"].as_str());
        let grown: String = deltas.collect();
        let done = of_item
            .iter()
            .find(|e| kind(e).ends_with("text.done") || kind(e).ends_with("arguments.done"));
        let done = done.unwrap();
        assert_eq!(done["item_id"], item["id"]);
        assert!(done["text"] == grown.as_str() || done["arguments"] == grown.as_str(), "{done}");
        let num_parts = of_item.iter().filter(|e| kind(e).starts_with("content_part.")).count();
        assert_eq!(num_parts, if index == 2 { 0 } else { 2 });
    }
    // Stored as it was sent.
    let id = last["response"]["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("{PATH}/{id}")).await.json(), last["response"]);
}

/// What agents ask for that keep conversations themselves.
#[tokio::test]
async fn reasoning_comes_as_a_summary_and_encrypted() {
    let server = Server::parsing("qwen3", "none", &["<think>Hm", "m.</think>Yes."]);
    let more = json!({"reasoning": {"effort": "low", "summary": "auto"}, "store": false,
                      "include": ["reasoning.encrypted_content"]});
    let whole = server.post(PATH, body(more.clone())).await.json();
    assert_eq!(whole["reasoning"], json!({"effort": "low", "summary": "auto"}));
    let item = &whole["output"][0];
    assert_eq!(item["summary"], json!([{"type": "summary_text", "text": "Hmm."}]));
    assert_eq!(item["content"], json!([{"type": "reasoning_text", "text": "Hmm."}]));
    let encrypted = item["encrypted_content"].as_str().unwrap();

    let mut more = more;
    more["stream"] = json!(true);
    let events = events(&server.post(PATH, body(more)).await);
    let of_item: Vec<&Value> = events.iter().filter(|e| e["output_index"] == 0).collect();
    let kinds: Vec<_> = of_item.iter().map(|e| e["type"].as_str().unwrap()).collect();
    let [added, part, delta, .., text_done, part_done, done] = of_item.as_slice() else {
        panic!("{kinds:?}")
    };
    assert_eq!(
        [&kinds[..3], &kinds[kinds.len() - 3..]].concat(),
        [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
        ]
    );
    assert_eq!(
        (&added["item"]["summary"], added["item"].get("encrypted_content")),
        (&json!([]), None)
    );
    assert_eq!(part["part"], json!({"type": "summary_text", "text": ""}));
    assert_eq!((&delta["summary_index"], delta.get("content_index")), (&json!(0), None));
    assert_eq!(text_done["text"], "Hmm.");
    assert_eq!(part_done["part"], json!({"type": "summary_text", "text": "Hmm."}));
    assert_eq!(done["item"]["encrypted_content"], encrypted);

    // Each of its forms comes back as the same thought, which this template does not show.
    for thought in [
        json!({"encrypted_content": encrypted, "summary": []}),
        json!({"summary": [{"type": "summary_text", "text": "Hmm."}]}),
    ] {
        let mut item = thought;
        item["type"] = json!("reasoning");
        let input = json!([{"role": "user", "content": "Hi"}, item]);
        let answer = server.post(PATH, body(json!({"input": input}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_conversation_goes_on_without_its_instructions() {
    let server = Server::parsing("qwen3", "qwen25", PIECES);
    let tools = json!([{"type": "function", "name": "now"}]);
    let first = body(json!({"tools": tools, "instructions": "First."}));
    let first = server.post(PATH, first).await.json();
    assert!(prompt_of(&server).await.contains("system\nFirst.<|im_end|>\n<|im_start|>user\nHi"));
    let call_id = first["output"][2]["call_id"].clone();
    let output = json!([{"type": "function_call_output", "call_id": call_id, "output": "noon"}]);
    let next = json!({"input": output, "previous_response_id": first["id"]});
    let next = server.post(PATH, body(next)).await;
    assert_eq!(next.status, 200, "{}", next.text);
    let prompt = prompt_of(&server).await;
    let turns: Vec<&str> = prompt.split("<|im_start|>").skip(1).collect();
    assert_eq!(turns[0], "user\nHi<|im_end|>\n");
    assert!(turns[1].starts_with("assistant\nSee:[{"), "{}", turns[1]);
    assert!(turns[1].contains(r#""arguments": {"zone": "CET"}"#), "{}", turns[1]);
    assert_eq!(turns[2], "tool\nnoon<|im_end|>\n");

    // What is not stored is not there.
    let unstored = server.post(PATH, body(json!({"store": false}))).await.json();
    let id = unstored["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("{PATH}/{id}")).await.status, 404);
    let missing = server.post(PATH, body(json!({"previous_response_id": id}))).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["param"], "previous_response_id");
}

#[tokio::test]
async fn items_become_messages() {
    let server = Server::answering("x");
    let input = json!([
        {"role": "developer", "content": "Second."},
        {"role": "user", "content": [{"type": "input_text", "text": "Time"}, {"type": "input_text", "text": "?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "See:", "annotations": []}]},
        {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{\"zone\":1}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "noon"}]},
    ]);
    let answer = server.post(PATH, body(json!({"input": input, "instructions": "First."}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let prompt = prompt_of(&server).await;
    let turns: Vec<&str> = prompt.split("<|im_start|>").skip(1).collect();
    assert_eq!(turns[0], "system\nFirst.\nSecond.<|im_end|>\n");
    assert_eq!(turns[1], "user\nTime?<|im_end|>\n");
    assert!(turns[2].starts_with("assistant\nSee:[{"), "{}", turns[2]);
    assert_eq!(turns[3], "tool\nnoon<|im_end|>\n");
    assert_eq!(turns.len(), 5);
}

#[tokio::test]
async fn work_in_the_background_can_be_fetched_and_cancelled() {
    let server = Server::answering("Hello!");
    let begun = server.post(PATH, body(json!({"background": true}))).await.json();
    assert_eq!((&begun["status"], &begun["output"]), (&json!("in_progress"), &json!([])));
    let path = format!("{PATH}/{}", begun["id"].as_str().unwrap());
    let mut response = server.get(&path).await.json();
    while response["status"] == "in_progress" {
        tokio::task::yield_now().await;
        response = server.get(&path).await.json();
    }
    assert_eq!(response["status"], "completed");
    assert_eq!(response["output"][0]["content"][0]["text"], "Hello!");

    let server = Server::new(FakeEngine::start(|_| Answer::endless("on and on")));
    let begun = server.post(PATH, body(json!({"background": true}))).await.json();
    let path = format!("{PATH}/{}", begun["id"].as_str().unwrap());
    let cancelled = server.post(&format!("{path}/cancel"), json!({})).await.json();
    assert_eq!(cancelled["status"], "cancelled");
    let Seen::Generate(req) = server.engine.next_seen().await else { panic!("no request") };
    server.engine.wait_for(Seen::Closed(req.rid)).await;
    assert_eq!(server.get(&path).await.json()["status"], "cancelled");
    let next = server.post(PATH, body(json!({"previous_response_id": cancelled["id"]}))).await;
    assert_eq!(
        (next.status.as_u16(), &next.json()["error"]["param"]),
        (400, &json!("previous_response_id"))
    );
    // Not one that the client waits for, nor one that nobody knows.
    let server = Server::answering("x");
    let id = server.post(PATH, body(json!({}))).await.json()["id"].clone();
    let path = format!("{PATH}/{}/cancel", id.as_str().unwrap());
    assert_eq!(server.post(&path, json!({})).await.status, 400);
    assert_eq!(server.post(&format!("{PATH}/resp_none/cancel"), json!({})).await.status, 404);
}

#[tokio::test]
async fn an_answer_cut_off_is_incomplete() {
    let answer = Answer::ids(&[97], FinishReason::Length { length: 1 });
    let server = Server::new(FakeEngine::start(move |_| answer.clone()));
    let whole = server.post(PATH, body(json!({"max_output_tokens": 1}))).await.json();
    assert_eq!(whole["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(
        (&whole["status"], &whole["output"][0]["status"]),
        (&json!("incomplete"), &json!("incomplete"))
    );
    let events = events(&server.post(PATH, body(json!({"stream": true}))).await);
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
}

#[tokio::test]
async fn logprobs_come_with_the_text() {
    let server = Server::answering("ab");
    let more = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let answer = server.post(PATH, body(more)).await.json();
    let logprobs = answer["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    assert_eq!((&logprobs[0]["token"], &logprobs[0]["logprob"]), (&json!("a"), &json!(-12.125)));
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let server = Server::answering("x");
    let image = json!([{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]);
    let format = |format: Value| json!({"text": {"format": format}});
    for (more, name) in [
        (json!({"input": null}), "string"),
        (json!({"input": image}), "input_image"),
        (json!({"input": [{"type": "item_reference", "id": "i"}]}), "item_reference"),
        (json!({"input": [{"content": "x"}]}), "role"),
        (json!({"input": [{"type": "function_call", "name": "f"}]}), "arguments"),
        (json!({"tools": [{"type": "web_search"}]}), "web_search"),
        (json!({"tool_choice": {"type": "file_search"}}), "file_search"),
        (json!({"include": ["file_search_call.results"]}), "file_search_call.results"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"reasoning": {"effort": "lots"}}), "reasoning_effort must be one of"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (json!({"conversation": "c"}), "conversation"),
        (format(json!({"type": "xml"})), "text.format: unknown variant `xml`"),
        (format(json!({"type": "json_schema", "schema": {}})), "text.format: missing field `name`"),
        (format(json!({"type": "json_schema", "name": "a"})), "schema_ is required"),
        (format(json!("text")), "text.format: invalid type"),
        (json!({"text": {"verbosity": "high"}}), "verbosity"),
        (json!({"reasoning": {"summary": "long"}}), "unknown variant `long`"),
        (json!({"reasoning": {"generate_summary": "auto"}}), "reasoning.generate_summary"),
        (json!({"background": true, "store": false}), "store"),
        (json!({"background": true, "stream": true}), "background"),
        (json!({"stream": true, "include": ["message.output_text.logprobs"]}), "include"),
        (json!({"top_p": 3}), "top_p"),
    ] {
        let answer = server.post(PATH, body(more.clone())).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text);
        let error = answer.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(name), "{more}: {error}");
    }
    let streamed = server.get(&format!("{PATH}/resp_1?stream=true")).await;
    assert_eq!(
        (streamed.status.as_u16(), &streamed.json()["error"]["param"]),
        (400, &json!("stream"))
    );
}

#[tokio::test]
async fn a_stream_that_breaks_has_failed() {
    let dead = Answer { dies: true, finish: None, ..Answer::pieces(&["ab"]) };
    let server = Server::new(FakeEngine::start(move |_| dead.clone()));
    let events = events(&server.post(PATH, body(json!({"stream": true}))).await);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.failed"), &json!("failed"))
    );
    assert_eq!(last["response"]["error"]["code"], "server_error");
}
