//! What clients should not send. Each is refused with a 4xx that says why, and
//! the server goes on.

use std::{
    io::Read,
    thread,
    time::{Duration, Instant},
};

use e2e::{exclusive, generate, shared};
use serde_json::{Value, json};
use test_kit::Client;

fn refused(client: &Client, path: &str, body: &[u8]) -> (u16, String) {
    let response = client.send("POST", path, body).unwrap();
    let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
    assert!((400..500).contains(&response.status), "{shown}: {}", response.status);
    (response.status, response.text().to_owned())
}

#[test]
fn bad_requests_are_refused_by_name() {
    let server = shared();
    let ids =
        |sampling_params: Value| json!({ "input_ids": [1, 2], "sampling_params": sampling_params });
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/generate", json!({ "sampling_params": {} }), "text"),
        ("/generate", json!({ "text": "" }), ""),
        ("/generate", json!({ "input_ids": [] }), ""),
        ("/generate", json!({ "text": 7 }), ""),
        ("/generate", json!({ "input_ids": "abc" }), ""),
        ("/generate", json!({ "input_ids": [1.5] }), ""),
        ("/generate", json!({ "input_ids": [-1] }), ""),
        ("/generate", json!({ "input_ids": [49152] }), "49152"),
        ("/generate", json!({ "input_ids": [4_000_000_000_u32] }), ""),
        ("/generate", json!({ "text": "a", "input_ids": [1] }), ""),
        ("/generate", json!({ "input_ids": vec![1; 9000] }), "9000"),
        ("/generate", ids(json!({ "temprature": 0.5 })), "temprature"),
        ("/generate", ids(json!({ "temperature": -1 })), "temperature"),
        ("/generate", ids(json!({ "temperature": "hot" })), ""),
        ("/generate", ids(json!({ "top_p": 0 })), "top_p"),
        ("/generate", ids(json!({ "top_k": 0 })), "top_k"),
        ("/generate", ids(json!({ "min_p": 2 })), "min_p"),
        ("/generate", ids(json!({ "max_new_tokens": -5 })), "max_new_tokens"),
        ("/generate", ids(json!({ "min_new_tokens": 9, "max_new_tokens": 3 })), "min_new_tokens"),
        ("/generate", ids(json!({ "stop": vec!["x"; 10_000] })), "stop"),
        ("/generate", ids(json!({ "json_schema": "{" })), "json_schema"),
        ("/v1/completions", json!({ "prompt": "a", "temperature": "x" }), ""),
        ("/generate", ids(json!({ "frequency_penalty": 9 })), "frequency_penalty"),
        ("/generate", ids(json!({ "logit_bias": { "49152": 1 } })), "49152"),
        ("/v1/completions", json!({ "prompt": "a", "logprobs": -3 }), "logprobs"),
        ("/v1/chat/completions", json!({ "messages": [] }), ""),
        ("/v1/chat/completions", json!({ "messages": "hello" }), ""),
        ("/v1/chat/completions", json!({ "model": "default" }), "messages"),
    ];
    for (path, body, named) in cases {
        let (_, text) = refused(&server, path, body.to_string().as_bytes());
        let is_named = text.to_lowercase().contains(named);
        assert!(is_named, "{path}: {named:?} is not named in {text}");
        assert!(!text.is_empty(), "{path} {body}: an empty answer");
    }
    generate(&server, &[1, 2], &json!({ "max_new_tokens": 1 }));
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let server = shared();
    for body in [
        b"".as_slice(),
        b"{",
        b"[]",
        b"null",
        b"{\"text\": \"a\", \"sampling_params\": {\"temperature\": NaN}}",
        b"{\"text\": \"a\", \"sampling_params\": {\"temperature\": 1e999}}",
        b"{\"text\": \"\xff\xfe\"}",
        b"{\"text\": \"\\ud800\"}",
    ] {
        refused(&server, "/generate", body);
        refused(&server, "/v1/chat/completions", body);
    }
    refused(&server, "/generate", &b"[".repeat(100_000));
    generate(&server, &[1, 2], &json!({ "max_new_tokens": 1 }));
}

#[test]
fn a_ten_megabyte_prompt_is_refused() {
    let server = shared();
    let body = json!({ "text": "word ".repeat(2_000_000) }).to_string();
    let (status, text) = refused(&server, "/generate", body.as_bytes());
    assert!(status == 400 || status == 413, "{status}: {text}");
    generate(&server, &[1, 2], &json!({ "max_new_tokens": 1 }));
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let server = shared();
    assert_eq!(server.get("/no/such/path").unwrap().status, 404);
    assert_eq!(server.get("/v1/chat/completions").unwrap().status, 405);
    assert_eq!(server.get("/v1/models/none").unwrap().status, 404);
}

#[test]
fn a_client_that_hangs_up_frees_its_pages_within_a_second() {
    let server = exclusive();
    let body = json!({
        "input_ids": vec![504; 200], "stream": true,
        "sampling_params": { "max_new_tokens": 4000, "ignore_eos": true },
    });
    let mut events = server.stream("/generate", &body).unwrap();
    for _ in 0..3 {
        events.next().unwrap().unwrap();
    }
    assert!(running(&server) > 0);
    drop(events);
    let hung_up = Instant::now();
    while running(&server) > 0 {
        assert!(hung_up.elapsed() < Duration::from_secs(1), "still running after a second");
    }
    // Refused while anything is live: all pages are free, or in the tree.
    assert_eq!(server.post("/flush_cache", &json!({})).unwrap().status, 200);
}

fn running(client: &Client) -> u64 {
    let loads = client.get("/v1/loads").unwrap().json();
    loads["loads"][0]["num_running_reqs"].as_u64().unwrap()
}

#[test]
fn five_hundred_connections_at_once_are_answered() {
    let server = exclusive();
    let client: &Client = &server;
    let body = json!({
        "input_ids": [504, 2644], "sampling_params": { "max_new_tokens": 1, "temperature": 0 },
    })
    .to_string();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let one = || {
            // All connect before any reads: the answers wait in 500 sockets.
            let mut socket = client.open("POST", "/generate", body.as_bytes()).unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            answer.split(' ').nth(1).unwrap().parse().unwrap()
        };
        let started: Vec<_> = (0..500).map(|_| scope.spawn(one)).collect();
        started.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= 100, "{served} of 500 were served");
    generate(&server, &[1, 2], &json!({ "max_new_tokens": 1 }));
}
