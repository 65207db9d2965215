//! `/generate` as a stream: cumulative text that never splits a character.

use std::io::Read;

use e2e::{Goldens, generate, shared};
use serde_json::{Value, json};

const SCRIPTS: &[&str] = &["emoji", "chinese", "arabic", "hindi", "russian"];

#[test]
fn a_stream_ends_with_what_one_answer_holds() {
    let server = shared();
    let goldens = Goldens::read("plain").unwrap();
    for name in SCRIPTS {
        let input_ids = &goldens.prompt(name).input_ids;
        let sampling_params = json!({ "temperature": 0, "max_new_tokens": 24, "ignore_eos": true });
        let whole = generate(&server, input_ids, &sampling_params);
        let body = json!({
            "input_ids": input_ids, "sampling_params": sampling_params, "stream": true,
        });
        let events = server.stream("/generate", &body).unwrap().collect_data().unwrap();
        check_cumulative(name, &events);
        let last = events.last().unwrap();
        assert_eq!(last["text"], whole["text"], "{name}");
        assert_eq!(last["output_ids"], whole["output_ids"], "{name}");
        assert_eq!(last["meta_info"]["finish_reason"], json!({ "type": "length", "length": 24 }));
    }
}

/// Each event's text begins with the one before. A character whose first bytes
/// were sent early would show as U+FFFD and then change: it cannot pass.
fn check_cumulative(name: &str, events: &[Value]) {
    let texts: Vec<&str> = events.iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert!(texts.len() > 1, "{name}: a stream has several events");
    for pair in texts.windows(2) {
        assert!(pair[1].starts_with(pair[0]), "{name}: {pair:?}");
    }
}

#[test]
fn a_stream_read_byte_by_byte_is_the_same() {
    let server = shared();
    let golden = Goldens::read("plain").unwrap();
    let body = json!({
        "input_ids": golden.prompt("emoji").input_ids,
        "sampling_params": { "temperature": 0, "max_new_tokens": 16, "ignore_eos": true },
        "stream": true,
    });
    let whole = server.stream("/generate", &body).unwrap().collect_data().unwrap();
    let mut socket = server.open("POST", "/generate", body.to_string().as_bytes()).unwrap();
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while socket.read(&mut byte).unwrap() == 1 {
        bytes.push(byte[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("data: [DONE]"), "{text}");
    let payloads = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let texts: Vec<Value> = payloads
        .filter(|payload| *payload != "[DONE]")
        .map(|payload| serde_json::from_str::<Value>(payload).unwrap()["text"].clone())
        .collect();
    assert_eq!(texts.last().unwrap(), &whole.last().unwrap()["text"]);
}

#[test]
fn a_seeded_request_repeats_itself() {
    let server = shared();
    let params = |seed: u64| json!({ "temperature": 1.0, "max_new_tokens": 24, "sampling_seed": seed, "ignore_eos": true });
    let prompt = [504, 2644, 282];
    let ids = |seed| generate(&server, &prompt, &params(seed))["output_ids"].clone();
    let first = ids(7);
    assert_eq!(first.as_array().unwrap().len(), 24);
    assert_eq!(ids(7), first);
    assert_ne!(ids(8), first);
}
