//! What operators ask for: pauses, profiles, logs, dumps.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    time::Duration,
};

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use server::{LogFormat, LogTarget, RequestLog, RequestLogOptions, ServerConfig, TraceOptions};

use crate::support::{Answer, FakeEngine, PATIENCE, Seen, Server, config};

fn control(what: &str) -> Seen {
    Seen::Control(what.to_owned())
}

#[tokio::test]
async fn a_pause_reaches_the_engine_and_probes_stay_green() {
    let server = Server::answering("x");
    for (body, mode) in [
        ("", "Abort"),
        ("{}", "Abort"),
        (r#"{"mode":"retract"}"#, "Retract"),
        (r#"{"mode":"in_place"}"#, "InPlace"),
    ] {
        let answer = server.post_text("/pause_generation", body).await;
        assert_eq!(
            answer.json(),
            json!({"message": "Generation paused successfully.", "status": "ok"})
        );
        assert_eq!(server.engine.next_seen().await, control(&format!("pause {mode}")));
    }
    assert_eq!(server.get("/health").await.status, 200);
    let paused = async || {
        let text = server.get("/metrics").await.text;
        let line = text.lines().find(|line| line.starts_with("sglang:num_paused_reqs{"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(paused().await, "5");
    let body = json!({"torch_empty_cache": true});
    let answer = server.post("/continue_generation", body).await.json();
    assert_eq!(answer["message"], "Generation continued successfully.");
    assert_eq!(paused().await, "0");
    // The probe has not asked for a token.
    assert_eq!(server.engine.next_seen().await, control("continue"));
    assert_eq!(server.post("/pause_generation", json!({"mode": "stop"})).await.status, 400);
}

#[tokio::test]
async fn the_engine_is_slowed_down_and_limited() {
    let server = Server::answering("x");
    let slow = async |seconds: Value| {
        server.post("/slow_down", json!({"forward_sleep_time": seconds})).await.status.as_u16()
    };
    assert_eq!((slow(json!(0.25)).await, slow(json!(null)).await), (200, 200));
    assert_eq!(server.engine.next_seen().await, control("slow down 250ms"));
    assert_eq!(server.engine.next_seen().await, control("slow down 0ns"));
    assert_eq!((slow(json!(-1)).await, slow(json!(1e9)).await), (400, 400));

    let set = async |args: Value| {
        server.post("/set_internal_state", json!({"server_args": args})).await.json()
    };
    assert_eq!(set(json!({"pp_max_micro_batch_size": 2})).await, json!([true]));
    assert_eq!(server.engine.next_seen().await, control("limit running 2"));
    for refused in [
        json!({"pp_max_micro_batch_size": 9}),
        json!({"pp_max_micro_batch_size": 0}),
        json!({"pp_max_micro_batch_size": 2, "page_size": 1}),
    ] {
        assert_eq!(set(refused).await, json!([false]));
    }
    assert_eq!(server.get("/freeze_gc").await.text, "Garbage collection frozen.\n");
}

#[tokio::test]
async fn a_profile_is_written_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::answering("x");
    let body = json!({
        "output_dir": folder.path().join("new"), "num_steps": 3, "profile_id": "p",
        "profile_prefix": "run", "activities": ["CPU", "GPU"], "profile_by_stage": true,
    });
    assert_eq!(server.post("/start_profile", body).await.text, "Start profiling.\n");
    assert_eq!(server.engine.next_seen().await, control("start profile Some(3)"));
    let path = folder.path().join("new/run-p.json");
    tokio::time::timeout(PATIENCE, async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(server.get("/stop_profile").await.status, 400, "none is taken");
    for bad in [
        json!({"num_steps": 0}),
        json!({"num_steps": 99}), // which the engine refuses
        json!({"profile_id": "a/b"}),
        json!({"with_stack": true}),
        json!({"start_step": 3}),
    ] {
        assert_eq!(server.post("/start_profile", bad.clone()).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn answers_name_the_weights_of_the_day() {
    let server = Server::answering("x");
    let body = json!({"new_version": "step-7"});
    assert_eq!(
        server.post("/update_weight_version", body).await.json(),
        json!({
            "success": true, "message": "Weight version updated to step-7", "new_version": "step-7",
        })
    );
    assert_eq!(server.engine.next_seen().await, Seen::Abort(None));
    let answer = server.post("/generate", json!({"text": "a"})).await.json();
    assert_eq!(answer["meta_info"]["weight_version"], "step-7");
    assert_eq!(server.get("/model_info").await.json()["weight_version"], "step-7");
    server.engine.next_req().await;
    let body = json!({"new_version": "8", "abort_all_requests": false});
    server.post("/update_weight_version", body).await;
    server.post("/generate", json!({"text": "a"})).await;
    server.engine.next_req().await;
}

#[tokio::test]
async fn weights_are_updated_from_disk() {
    let server = Server::answering("x");
    let body = json!({
        "model_path": "models/new", "weight_version": "2", "abort_all_requests": true,
        "recapture_cuda_graph": true, "token_step": 7,
    });
    let answer = server.post("/update_weights_from_disk", body).await;
    assert_eq!(
        answer.json(),
        json!({
            "success": true,
            "message": "Succeeded to update model weights. Weight version updated to 2.",
            "num_paused_requests": 2,
        })
    );
    let update = "WeightUpdate { model_path: \"models/new\", load_format: None, \
                  abort_all_requests: true, flush_cache: true }";
    assert_eq!(server.engine.next_seen().await, control(update));
    for path in ["/model_info", "/server_info"] {
        let info = server.get(path).await.json();
        assert_eq!(
            (&info["model_path"], &info["weight_version"]),
            (&json!("models/new"), &json!("2"))
        );
        assert_eq!(info["served_model_name"], "tiny");
    }

    let body = json!({"model_path": "broken", "weight_version": "3"});
    let answer = server.post("/update_weights_from_disk", body).await;
    assert_eq!(answer.status, 400);
    let expected =
        json!({"success": false, "message": "a tensor is missing", "num_paused_requests": 0});
    assert_eq!(answer.json(), expected);
    assert_eq!(server.get("/model_info").await.json()["weight_version"], "2");
    for bad in [json!({}), json!({"model_path": "m", "keep_pause": true})] {
        assert_eq!(
            server.post("/update_weights_from_disk", bad.clone()).await.status,
            400,
            "{bad}"
        );
    }
}

/// The lines of the only file in a folder, without their times.
fn lines(server: &Server, folder: &Path) -> Vec<String> {
    server.state.flush_logs(Duration::from_secs(10));
    let mut files = fs::read_dir(folder).unwrap();
    let text = fs::read_to_string(files.next().unwrap().unwrap().path()).unwrap();
    assert!(files.next().is_none());
    text.lines().map(|line| line.split_once("] ").unwrap().1.to_owned()).collect()
}

fn log_to(folder: &Path) -> RequestLog {
    let targets = vec![LogTarget::Folder(folder.to_owned())];
    let format = LogFormat::Json;
    let options =
        RequestLogOptions { is_on: true, level: 0, format, targets, ..Default::default() };
    RequestLog::open(options).unwrap()
}

#[tokio::test]
async fn requests_are_logged_as_much_as_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::answering("ok");
    server.state.log_requests(log_to(folder.path()));
    let generate = async |rid: &str| {
        server.post("/generate", json!({"text": "hi", "rid": rid})).await;
    };
    let configure = async |body: Value| server.post("/configure_logging", body).await.status;
    generate("0").await;
    assert_eq!(configure(json!({"log_requests_level": 1})).await, 200);
    generate("1").await;
    assert_eq!(
        configure(json!({"log_requests_level": 2, "log_requests_format": "text"})).await,
        200
    );
    generate("2").await;
    assert_eq!(configure(json!({"log_requests": false})).await, 200);
    generate("3").await;

    let lines = lines(&server, folder.path());
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let json = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let (received, finished) = (json(&lines[0]), json(&lines[1]));
    assert_eq!((&received["event"], &received["rid"]), (&json!("request.received"), &json!("0")));
    assert_eq!(received["obj"], json!({"rid": "0", "stream": false}));
    assert_eq!(finished["event"], "request.finished");
    assert_eq!(finished["out"]["meta_info"]["completion_tokens"], 3);
    assert!(finished["out"].get("text").is_none());
    assert_eq!(json(&lines[2])["obj"]["sampling_params"]["max_new_tokens"], 128);
    assert!(json(&lines[2])["obj"].get("text").is_none());
    let obj = json(lines[4].strip_prefix("Receive: obj=").unwrap());
    assert_eq!((&obj["text"], &obj["input_ids"]), (&json!("hi"), &json!([104, 105])));
    let (_, out) = lines[5].split_once(", out=").unwrap();
    let out = json(out);
    assert_eq!((&out["text"], &out["output_ids"]), (&json!("ok"), &json!([111, 107, 257])));
    assert_eq!(out["meta_info"]["finish_reason"], json!({"type": "stop", "matched": 257}));
}

#[tokio::test]
async fn only_the_slow_have_a_line_at_their_end_if_that_is_asked_for() {
    for (exceeded, num_lines) in [(Duration::ZERO, 2), (Duration::from_secs(60), 1)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::answering("ok");
        let targets = vec![LogTarget::Folder(folder.path().to_owned())];
        let options = RequestLogOptions { is_on: true, targets, exceeded, ..Default::default() };
        server.state.log_requests(RequestLog::open(options).unwrap());
        server.post("/generate", json!({"text": "hi"})).await;
        let lines = lines(&server, folder.path());
        assert_eq!(lines.len(), num_lines, "{lines:#?}");
        assert!(lines[0].starts_with("Receive: "), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::answering("ok");
    server.state.log_requests(log_to(folder.path()));
    let old = tempfile::tempdir().unwrap();
    for (index, rid) in ["a", "b"].into_iter().enumerate() {
        // Before the first line too.
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        fs::rename(&path, old.path().join(index.to_string())).unwrap();
        server.state.reopen_logs();
        server.post("/generate", json!({"text": "hi", "rid": rid})).await;
        let lines = lines(&server, folder.path());
        let rid_of = |line: &String| serde_json::from_str::<Value>(line).unwrap()["rid"].clone();
        assert_eq!(lines.iter().map(rid_of).collect::<Vec<_>>(), [rid, rid], "{lines:#?}");
    }
    let in_old = |name: &str| fs::read_to_string(old.path().join(name)).unwrap().lines().count();
    assert_eq!((in_old("0"), in_old("1")), (0, 2));
}

#[tokio::test]
async fn logging_options_that_cannot_be_are_refused() {
    let server = Server::answering("x");
    for bad in [
        json!({"log_requests_level": 4}),
        json!({"log_requests_level": -1}),
        json!({"log_requests_format": "xml"}),
        json!({"log_level": "info"}), // nobody has allowed it
        json!({"dump_requests_folder": "/tmp"}),
    ] {
        assert_eq!(server.post("/configure_logging", bad.clone()).await.status, 400, "{bad}");
    }
    server.state.allow_log_level(|level| match level {
        "loud" => Err("log_level loud is not one of quiet".to_owned()),
        _ => Ok(()),
    });
    let set = async |level| {
        let answer = server.post("/configure_logging", json!({"log_level": level})).await;
        (answer.status.as_u16(), answer.text)
    };
    assert_eq!(set("quiet").await.0, 200);
    let (status, text) = set("loud").await;
    assert_eq!(status, 400);
    assert!(text.contains("log_level loud is not one of quiet"), "{text}");
}

#[tokio::test]
async fn a_crash_dump_tells_of_live_and_finished_requests() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(FakeEngine::start(|req| match req.rid.as_str() {
        "live" => Answer::endless("a"),
        _ => Answer::text("ok"),
    }));
    assert_eq!(server.state.dump_requests("x").unwrap(), None, "there is no folder");
    server.post("/generate", json!({"text": "unknown"})).await;
    let body = json!({"crash_dump_folder": folder.path()});
    assert_eq!(server.post("/configure_logging", body).await.status, 200);
    assert_eq!(server.state.dump_requests("x").unwrap(), None, "nothing to tell");

    server.post("/generate", json!({"text": "hi", "rid": "done"})).await;
    let body = json!({"text": "yo", "rid": "live", "sampling_params": {"temperature": 0.5}});
    let live = server.post("/generate", body);
    let dump = async {
        while server.state.num_live_requests() == 0 {
            tokio::task::yield_now().await;
        }
        server.state.dump_requests("the device is lost").unwrap().unwrap()
    };
    let path = tokio::select! {
        path = dump => path,
        answer = live => panic!("an endless request has ended: {}", answer.text),
    };
    let dump: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(dump["reason"], "the device is lost");
    assert_eq!(dump["server_args"]["model_path"], "models/tiny");
    assert!(dump["server_args"].get("api_key").is_none());
    let [done, live] = dump["requests"].as_array().unwrap().as_slice() else { panic!("{dump}") };
    assert_eq!(
        (&done["obj"]["rid"], &done["obj"]["input_ids"]),
        (&json!("done"), &json!([104, 105]))
    );
    assert_eq!(done["out"]["output_ids"], json!([111, 107, 257]));
    assert!(done["finished_time"].as_f64() >= done["created_time"].as_f64());
    assert_eq!((&live["obj"]["rid"], &live["out"]), (&json!("live"), &json!({})));
    assert_eq!(live["obj"]["sampling_params"]["temperature"], 0.5);
    assert_eq!(live["finished_time"], Value::Null);
}

/// Takes one request of a collector's client: its head, and its body.
fn collect_one(listener: &TcpListener) -> (String, Value) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the client hung up");
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            return (head.to_lowercase(), body);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_traced_where_the_caller_says() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let trace = Some(TraceOptions { url, service_name: "mine".to_owned() });
    let server = Server::with_config(
        FakeEngine::start(|_| Answer::text("ok")),
        ServerConfig { trace, ..config() },
    );
    let collected = tokio::task::spawn_blocking(move || collect_one(&collector));
    let request = Request::post("/generate")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body(Body::from(r#"{"text":"hi","rid":"r"}"#));
    assert_eq!(server.send(request.unwrap()).await.status, 200);
    let state = server.state.clone();
    tokio::task::spawn_blocking(move || state.flush_logs(PATIENCE)).await.unwrap();

    let (head, body) = tokio::time::timeout(PATIENCE, collected).await.unwrap().unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let resource = &body["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "mine");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    let names: Vec<_> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Req r", "prefill", "decode"]);
    assert_eq!(spans[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(spans[0]["parentSpanId"], "00f067aa0ba902b7");
}
