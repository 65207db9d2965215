//! What goes out and what comes back, interface by interface.

use super::*;

fn options() -> BodyOptions<'static> {
    BodyOptions { model: "m", output_len: 5, stream: true, ignore_eos: true }
}

#[test]
fn names_are_sorted_and_unknown_ones_refused() {
    assert!(BACKENDS.windows(2).all(|pair| pair[0].name < pair[1].name));
    let error = "trt".parse::<Backend>().unwrap_err().to_string();
    assert!(error.starts_with("unknown backend `trt` (choose from llama-server, lmdeploy,"));
}

#[test]
fn bodies_are_what_the_interfaces_take() {
    assert_eq!(
        body(Api::Generate, &History::Ids(vec![1, 2]), options()),
        json!({
            "input_ids": [1, 2],
            "sampling_params": {"temperature": 0.0, "max_new_tokens": 5, "ignore_eos": true},
            "stream": true,
        })
    );
    assert_eq!(
        body(Api::Completions, &History::Text("a b".to_owned()), options()),
        json!({
            "model": "m", "prompt": "a b", "temperature": 0.0, "max_tokens": 5,
            "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true},
        })
    );
    let messages = vec![json!({"role": "user", "content": "a"})];
    assert_eq!(
        body(
            Api::Chat,
            &History::Messages(messages.clone()),
            BodyOptions { stream: false, ..options() }
        ),
        json!({
            "model": "m", "messages": messages, "temperature": 0.0, "max_completion_tokens": 5,
            "ignore_eos": true, "stream": false,
        })
    );
}

#[test]
fn extra_fields_go_where_they_belong() {
    let mut body = json!({"sampling_params": {"temperature": 0.0, "top_k": 1}, "stream": true});
    merge(&mut body, &json!({"sampling_params": {"temperature": 0.7}, "priority": 3}));
    assert_eq!(
        body,
        json!({"sampling_params": {"temperature": 0.7, "top_k": 1}, "stream": true, "priority": 3})
    );
}

#[test]
fn native_chunks_are_whole_or_new() {
    let chunk = |ids: &str, count: usize| {
        let json = format!(
            r#"{{"text":"a\"b","output_ids":{ids},"meta_info":{{"prompt_tokens":9,
            "completion_tokens":{count},"cached_tokens":4,"finish_reason":null}}}}"#
        );
        parse(Api::Generate, json.as_bytes()).unwrap()
    };
    let whole = chunk("[1,2]", 2);
    assert_eq!((whole.text.as_str(), whole.is_whole, whole.error), ("a\"b", true, None));
    assert_eq!(
        whole.usage,
        Usage { prompt_tokens: Some(9), completion_tokens: Some(2), cached_tokens: Some(4) }
    );
    assert!(!chunk("[2]", 2).is_whole);
}

#[test]
fn openai_chunks_and_answers() {
    let text = |json: &str| parse(Api::Chat, json.as_bytes()).unwrap().text;
    assert_eq!(text(r#"{"choices":[{"index":0,"text":"x"}]}"#), "x");
    assert_eq!(text(r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#), "");
    assert_eq!(text(r#"{"choices":[{"delta":{"reasoning_content":"r","content":"c"}}]}"#), "rc");
    assert_eq!(text(r#"{"choices":[{"message":{"content":"all"}}],"usage":null}"#), "all");
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,
        "prompt_tokens_details":{"cached_tokens":1}}}"#;
    assert_eq!(
        parse(Api::Completions, usage.as_bytes()).unwrap().usage,
        Usage { prompt_tokens: Some(3), completion_tokens: Some(2), cached_tokens: Some(1) }
    );
}

#[test]
fn failures_are_seen() {
    let error = |api, json: &str| parse(api, json.as_bytes()).map(|chunk| chunk.error);
    assert_eq!(
        error(Api::Chat, r#"{"error":{"message":"no room","code":503}}"#),
        Ok(Some("no room".to_owned()))
    );
    let abort = r#"{"text":"","meta_info":{"finish_reason":{"type":"abort","message":"out"}}}"#;
    assert_eq!(error(Api::Generate, abort), Ok(Some("out".to_owned())));
    assert!(error(Api::Generate, "nonsense").unwrap_err().starts_with("unreadable answer"));
}
