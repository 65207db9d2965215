//! Start, readiness, authentication, and the two ways to stop.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use e2e::{shared, start};
use serde_json::json;
use test_kit::ServerProcess;

fn long_stream(server: &ServerProcess, num_tokens: usize) -> test_kit::EventStream {
    let body = json!({
        "input_ids": [504, 2644], "stream": true,
        "sampling_params": { "max_new_tokens": num_tokens, "ignore_eos": true, "temperature": 0 },
    });
    let mut events = server.client().stream("/generate", &body).unwrap();
    events.next().unwrap().unwrap();
    events
}

#[test]
fn sigterm_lets_live_requests_finish_and_exits_0() {
    let mut server = start(&[]).unwrap();
    let events = long_stream(&server, 40);
    server.signal("TERM").unwrap();
    let events = events.collect_data().unwrap();
    let last = events.last().unwrap();
    assert_eq!(last["meta_info"]["finish_reason"], json!({ "type": "length", "length": 40 }));
    let status = server.wait(Duration::from_secs(20)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

#[test]
fn a_second_sigterm_exits_at_once() {
    let mut server = start(&[]).unwrap();
    let events = long_stream(&server, 4000);
    server.signal("TERM").unwrap();
    // The drain has begun when no new request is taken any more.
    while server.client().get("/health").is_ok_and(|response| response.status == 200) {}
    assert!(server.is_running(), "{}", server.log());
    server.signal("TERM").unwrap();
    server.wait(Duration::from_secs(5)).unwrap();
    drop(events);
}

/// An engine that sleeps for a minute stands for one that hangs.
#[test]
fn a_limited_drain_ends_in_time_whatever_the_engine_does() {
    let mut server = start(&["--drain-timeout", "1"]).unwrap();
    let slow = json!({ "forward_sleep_time": 60 });
    assert_eq!(server.client().post("/slow_down", &slow).unwrap().status, 200);
    let body = json!({ "input_ids": [504], "stream": true });
    let events = server.client().stream("/generate", &body).unwrap();
    server.signal("TERM").unwrap();
    let status = server.wait(Duration::from_secs(15)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(server.log().contains("the engine is still busy: leaving it"), "{}", server.log());
    drop(events);
}

#[test]
fn sighup_begins_new_log_files_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().to_str().unwrap();
    let server = start(&["--log-requests", "--log-requests-target", target]).unwrap();
    let log = || fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let old = tempfile::tempdir().unwrap();
    let moved = old.path().join("log.1");
    fs::rename(log(), &moved).unwrap();
    server.signal("HUP").unwrap();
    assert!(server.wait_for_log("SIGHUP", Duration::from_secs(10)), "{}", server.log());
    let body = json!({
        "rid": "after", "input_ids": [504], "sampling_params": { "max_new_tokens": 2 },
    });
    assert_eq!(server.client().post("/generate", &body).unwrap().status, 200);
    assert!(!fs::read_to_string(moved).unwrap().contains("after"));
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_whole = |text: &str| text.contains("Receive: ") && text.contains("Finish: ");
    while !is_whole(&fs::read_to_string(log()).unwrap()) {
        assert!(Instant::now() < deadline, "{}", fs::read_to_string(log()).unwrap());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Connections that died with it are no reason not to listen at the same port.
#[test]
fn after_kill_9_the_same_port_serves_again_at_once() {
    let server = start(&[]).unwrap();
    let body = json!({
        "input_ids": [504, 2644, 216], "sampling_params": { "max_new_tokens": 6, "temperature": 0 },
    });
    let expected = server.client().post("/generate", &body).unwrap().json();
    let streams: Vec<_> = (0..4).map(|_| long_stream(&server, 4000)).collect();
    let mut again = server.kill_and_start().unwrap();
    for events in streams {
        assert!(events.collect_data().is_err(), "a stream ends well after its server's death");
    }
    assert_eq!(again.client().get("/health").unwrap().status, 200);
    let answer = again.client().post("/generate", &body).unwrap().json();
    assert_eq!(answer["output_ids"], expected["output_ids"]);
    assert!(again.is_running());
}

#[test]
fn the_start_tells_device_and_memory_plan_and_that_it_is_ready() {
    let server = start(&["--max-total-tokens", "2048", "--max-running-requests", "4"]).unwrap();
    let log = server.log().to_lowercase();
    for words in ["2048", "the server is fired up and ready to roll!"] {
        assert!(log.contains(words), "{words:?} is not in\n{log}");
    }
    let info = server.client().get("/server_info").unwrap().json();
    assert_eq!(info["max_total_num_tokens"], 2048);
    assert_eq!(info["max_running_requests"], 4);
}

#[test]
fn a_profile_is_there_only_if_it_was_asked_for() {
    let body = json!({
        "input_ids": [504, 2644, 216],
        "sampling_params": { "max_new_tokens": 6, "ignore_eos": true, "temperature": 0 },
    });
    let mut server = start(&["--profile"]).unwrap();
    assert_eq!(server.client().post("/generate", &body).unwrap().status, 200);
    let profile = server.client().get("/server_info").unwrap().json()["profile"].clone();
    // The server's own request at its start may count too.
    for (kind, least) in [("prefill", 1), ("decode", 5)] {
        let of_kind = &profile[kind];
        assert!(of_kind["num_steps"].as_u64().is_some_and(|steps| steps >= least), "{profile}");
        let ms = |name: &str| of_kind[name].as_f64().unwrap();
        assert!(ms("host_ms") > 0.0 && ms("device_ms") > 0.0, "{profile}");
    }
    server.signal("TERM").unwrap();
    server.wait(Duration::from_secs(20)).unwrap();
    let log = server.log();
    assert!(log.contains("decode, mean of") && log.contains("wait and read"), "{log}");

    let info = shared().get("/server_info").unwrap().json();
    assert!(info.get("profile").is_none(), "{info}");
}

#[test]
fn an_api_key_is_asked_for_where_sglang_asks() {
    let server = start(&["--api-key", "secret"]).unwrap();
    let client = server.client();
    for open in ["/health", "/metrics"] {
        assert_ne!(client.get(open).unwrap().status, 401, "{open}");
    }
    let body = json!({ "input_ids": [1], "sampling_params": { "max_new_tokens": 1 } });
    let response = client.post("/generate", &body).unwrap();
    assert_eq!((response.status, response.json()), (401, json!({ "error": "Unauthorized" })));
    let with = |key: &str| client.clone().with_header("Authorization", key);
    assert_eq!(with("Bearer secret").post("/generate", &body).unwrap().status, 200);
    let prompt_tokens = || {
        let metrics = client.get("/metrics").unwrap();
        let line =
            metrics.text().lines().find(|line| line.starts_with("sglang:prompt_tokens_total"));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    let before = prompt_tokens();
    assert!(before.is_some(), "{}", client.get("/metrics").unwrap().text());
    for key in ["Bearer wrong", "Bearer secre", "Bearer secrets", "secret", ""] {
        assert_eq!(with(key).post("/generate", &body).unwrap().status, 401, "{key}");
    }
    assert_eq!(prompt_tokens(), before, "nothing of it reached the engine");
}

#[test]
fn information_is_under_both_names() {
    let server = shared();
    for (name, old) in [("/model_info", "/get_model_info"), ("/server_info", "/get_server_info")] {
        let (new, old) = (server.get(name).unwrap(), server.get(old).unwrap());
        assert_eq!((new.status, old.status), (200, 200), "{name}");
        assert_eq!(new.json()["model_path"], old.json()["model_path"]);
    }
    assert_eq!(server.get("/health").unwrap().status, 200);
    assert_eq!(server.get("/health_generate").unwrap().status, 200);
    let info = server.get("/model_info").unwrap().json();
    assert_eq!((&info["model_type"], &info["is_generation"]), (&json!("llama"), &json!(true)));
}

#[test]
fn a_server_without_a_tokenizer_speaks_in_token_ids() {
    let server = start(&["--skip-tokenizer-init"]).unwrap();
    let client = server.client();
    let body = json!({
        "input_ids": [504, 2644, 216], "sampling_params": { "max_new_tokens": 6, "temperature": 0 },
    });
    let answer = client.post("/generate", &body).unwrap().json();
    let expected = shared().post("/generate", &body).unwrap().json();
    assert_eq!(answer["output_ids"], expected["output_ids"]);
    assert_eq!(answer["text"], "");
    let refused = [
        ("/generate", json!({ "text": "Hello" })),
        ("/generate", json!({ "input_ids": [1], "sampling_params": { "stop": "." } })),
        ("/detokenize", json!({ "tokens": [1] })),
        ("/tokenize", json!({ "prompt": "Hello" })),
        ("/v1/chat/completions", json!({ "messages": [{ "role": "user", "content": "Hi" }] })),
    ];
    for (path, body) in refused {
        let response = client.post(path, &body).unwrap();
        assert_eq!(response.status, 400, "{path} {body}: {}", response.json());
    }
}
