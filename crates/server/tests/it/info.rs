//! What the server says about itself, and who may ask.

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::json;
use types::EngineStatus;

use crate::support::{Answer, FakeEngine, Seen, Server, config};

#[tokio::test]
async fn models() {
    let server = Server::answering("x");
    let list = server.get("/v1/models").await;
    insta::assert_snapshot!(list.redacted_json(), @r#"{"object":"list","data":[{"id":"tiny","object":"model","created":"[redacted]","owned_by":"sglang","root":"tiny","parent":null,"max_model_len":256}]}"#);
    assert_eq!(server.get("/v1/models/tiny").await.json(), list.json()["data"][0]);
    let missing = server.get("/v1/models/org/other").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn model_info_under_both_names() {
    let server = Server::answering("x");
    let info = server.get("/model_info").await.json();
    assert_eq!(info["model_path"], "models/tiny");
    assert_eq!(info["architectures"], json!(["LlamaForCausalLM"]));
    assert_eq!(info["load_format"], "auto");
    assert_eq!(server.get("/get_model_info").await.json(), info);
}

#[tokio::test]
async fn server_info_has_arguments_and_state_but_no_key() {
    let server = Server::answering("x");
    for path in ["/server_info", "/get_server_info"] {
        let info = server.get(path).await.json();
        assert_eq!(info["model_path"], "models/tiny");
        assert_eq!(info["version"], "1.2.3");
        assert_eq!(info["max_total_num_tokens"], 4096);
        assert_eq!(info["prefill_sharing"], json!({ "above": 256, "chunk": 16 }));
        assert_eq!(info["status"], "ready");
        let state = &info["internal_states"][0];
        assert_eq!(state["last_gen_throughput"], 12.5);
        assert_eq!(state["memory_usage"]["weight"], 1.0);
        assert_eq!(state["memory_usage"]["token_capacity"], 4096);
        assert_eq!(
            (&state["num_used_tokens"], &state["token_usage"]),
            (&json!(512), &json!(0.125))
        );
        let profile = &info["profile"];
        assert_eq!(profile["prefill"]["num_steps"], 0);
        assert_eq!(profile["decode"]["num_steps"], 7);
        assert_eq!(profile["decode"]["host_ms"], 0.0);
        assert!(info.get("api_key").is_none());
    }
}

#[tokio::test]
async fn loads_for_gateways() {
    let server = Server::answering("x");
    let loads = server.get("/v1/loads?include=core,queues").await.json();
    assert!(loads["timestamp"].as_str().is_some_and(|time| time.ends_with("+00:00")), "{loads}");
    let load = &loads["loads"][0];
    assert_eq!((&load["num_running_reqs"], &load["num_waiting_reqs"]), (&json!(3), &json!(2)));
    assert_eq!((&load["num_used_tokens"], &load["num_total_tokens"]), (&json!(512), &json!(1024)));
    assert_eq!((&load["utilization"], &load["cache_hit_rate"]), (&json!(0.375), &json!(0.25)));
    assert_eq!(load["total_prefill_uncached_tokens"], 75);
    assert_eq!(load["queues"], json!({"waiting": 2, "paused": 0}));
    assert!(load.get("memory").is_none());

    let all = &server.get("/v1/loads").await.json()["loads"][0];
    let memory = json!({"weight_gb": 1.0, "kv_cache_gb": 0.5, "token_capacity": 4096});
    assert_eq!((&all["memory"], &all["disaggregation"]), (&memory, &json!({"mode": "null"})));
    server.post("/pause_generation", json!({})).await;
    assert_eq!(server.get("/v1/loads?dp_rank=0").await.json()["loads"][0]["queues"]["paused"], 5);
    assert_eq!(server.get("/v1/loads?dp_rank=1").await.json()["loads"], json!([]));
    for bad in ["include=core,nothing", "format=xml", "dp_rank=x"] {
        assert_eq!(server.get(&format!("/v1/loads?{bad}")).await.status, 400, "{bad}");
    }

    let answer = server.get("/v1/loads?format=prometheus&include=memory").await;
    assert_eq!(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE sglang_num_running_reqs gauge",
        "sglang_num_running_reqs{dp_rank=\"0\"} 3",
        "sglang_token_usage{dp_rank=\"0\"} 0.125",
        "sglang_memory_kv_cache_gb{dp_rank=\"0\"} 0.5",
    ] {
        assert!(answer.text.lines().any(|found| found == line), "{line}\n{}", answer.text);
    }
    assert!(!answer.text.contains("queues") && !answer.text.contains("sglang_dp_rank"));
}

#[tokio::test]
async fn health() {
    let server = Server::answering("x");
    for path in ["/health", "/health_generate", "/ready", "/ping"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""), "{path}");
    }
    let probe = server.engine.next_req().await;
    assert!(probe.rid.as_str().starts_with("HEALTH_CHECK"));
    assert_eq!((probe.input_ids, probe.sampling_params.max_new_tokens), (vec![0], Some(1)));
    let root = server.get("/").await;
    assert_eq!((root.status.as_u16(), root.text.as_str()), (200, "SGLang is running"));
}

#[tokio::test]
async fn a_stuck_engine_is_unhealthy_unless_nobody_asks_it() {
    let (engine, _inbox) = FakeEngine::stuck();
    let server = Server::new(engine);
    assert_eq!(server.get("/health").await.status, 503);
    // The second probe finds the inbox full.
    assert_eq!(server.get("/health_generate").await.status, 503);
    let (engine, _inbox) = FakeEngine::stuck();
    let config = server::ServerConfig { health_generation: false, ..config() };
    let server = Server::with_config(engine, config);
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.get("/health_generate").await.status, 503);
}

/// While nothing but a long prompt runs, nobody gets a token.
#[tokio::test]
async fn a_batch_is_a_sign_of_life() {
    let (engine, _inbox) = FakeEngine::stuck();
    let server = Server::new(engine);
    let batch = async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        server.engine.handle().status_cell().add_batch();
    };
    let (answer, ()) = tokio::join!(server.get("/health_generate"), batch);
    assert_eq!(answer.status, 200);
    assert_eq!(server.get("/health_generate").await.status, 503, "that was before");
}

#[tokio::test]
async fn an_engine_that_goes_away_is_unhealthy_at_once() {
    let server =
        Server::new(FakeEngine::start(|_| Answer { dies: true, events: vec![], finish: None }));
    let cell = server.engine.handle().status_cell().clone();
    let watch = async {
        server.engine.next_req().await;
        cell.set(EngineStatus::Failed);
    };
    let (answer, ()) = tokio::join!(server.get("/health"), watch);
    assert_eq!(answer.status, 503);
}

#[tokio::test]
async fn tokenize_and_back() {
    let server = Server::answering("x");
    for path in ["/tokenize", "/v1/tokenize"] {
        let one = server.post(path, json!({"model": "m", "prompt": "AB"})).await.json();
        assert_eq!(one, json!({"tokens": [65, 66], "count": 2, "max_model_len": 256}));
        let many = server.post(path, json!({"prompt": ["A", ""]})).await.json();
        assert_eq!((&many["tokens"], &many["count"]), (&json!([[65], []]), &json!([1, 0])));
    }
    let messages = json!([{"role": "user", "content": "A"}]);
    let chat = server.post("/tokenize", json!({"messages": messages})).await.json();
    assert_eq!(chat["tokens"][0], 258);
    let bare = json!({"messages": messages, "add_generation_prompt": false});
    let bare = server.post("/tokenize", bare).await.json();
    assert!(bare["count"].as_u64() < chat["count"].as_u64());
    // Tools and the choice among them are part of the prompt, as in a chat.
    let tools = json!([{"type": "function", "function": {"name": "now"}}]);
    let called = json!({"messages": messages, "tools": tools});
    let called = server.post("/tokenize", called).await.json()["count"].as_u64();
    let none = json!({"messages": messages, "tools": tools, "tool_choice": "none"});
    let none = server.post("/tokenize", none).await.json()["count"].as_u64();
    assert_eq!(none, chat["count"].as_u64());
    assert!(called > none);
    for path in ["/detokenize", "/v1/detokenize"] {
        let one = server.post(path, json!({"tokens": [65, 257]})).await.json();
        assert_eq!(one, json!({"text": "A"}));
        let body = json!({"tokens": [[65], [257]], "skip_special_tokens": false});
        assert_eq!(server.post(path, body).await.json(), json!({"text": ["A", "</s>"]}));
        assert_eq!(server.post(path, json!({"tokens": [260]})).await.status, 400);
    }
    assert_eq!(server.post("/tokenize", json!({})).await.status, 400);
    assert_eq!(server.post("/tokenize", json!({"prompt": []})).await.json()["tokens"], json!([]));
}

#[tokio::test]
async fn flush_cache() {
    let server = Server::answering("x");
    for method in [Method::GET, Method::POST] {
        let request = Request::builder().method(method).uri("/flush_cache");
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "Cache flushed.\n"));
        assert_eq!(server.engine.next_seen().await, Seen::Flush);
    }
    for bad in ["-1", "x", "NaN", "inf", "1e300"] {
        assert_eq!(server.get(&format!("/flush_cache?timeout={bad}")).await.status, 400, "{bad}");
    }
    // The fake engine counts itself busy from its first request on.
    server.post("/generate", json!({"text": "x"})).await;
    assert_eq!(server.get("/flush_cache").await.status, 400);
    assert_eq!(server.get("/flush_cache?timeout=0.06").await.status, 400);
}

#[tokio::test]
async fn the_key_opens_all_but_the_probes() {
    let config = server::ServerConfig { api_key: Some("secret".to_owned()), ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    let get = |path: &str, key: Option<&str>| {
        let mut request = Request::get(path);
        if let Some(key) = key {
            request = request.header("authorization", key);
        }
        request.body(Body::empty()).unwrap()
    };
    for path in ["/health", "/health_generate", "/ready", "/metrics"] {
        assert_eq!(server.send(get(path, None)).await.status, 200, "{path}");
    }
    let wrong =
        [None, Some("secret"), Some("Bearer "), Some("Bearer secre"), Some("Bearer Secret")];
    for path in ["/v1/models", "/server_info", "/nowhere", "/"] {
        for key in wrong {
            let answer = server.send(get(path, key)).await;
            assert_eq!(answer.status, 401, "{path} {key:?}");
            assert_eq!(answer.json(), json!({"error": "Unauthorized"}));
        }
    }
    assert_eq!(server.send(get("/v1/models", Some("Bearer secret"))).await.status, 200);
}

#[tokio::test]
async fn administrators_routes_ask_for_the_administrators_key() {
    let status = async |keys: [Option<&str>; 2], path: &str, given: &str| {
        let [api_key, admin_api_key] = keys.map(|key| key.map(str::to_owned));
        let config = server::ServerConfig { api_key, admin_api_key, ..config() };
        let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
        let request = Request::get(path).header("authorization", format!("Bearer {given}"));
        server.send(request.body(Body::empty()).unwrap()).await.status.as_u16()
    };
    let (client, admin) = (Some("client"), Some("admin"));
    for (keys, given, [models, flush_cache]) in [
        ([None, None], "", [200, 200]),
        ([client, None], "client", [200, 200]),
        ([client, None], "admin", [401, 401]),
        ([None, admin], "admin", [200, 200]),
        ([None, admin], "", [200, 401]),
        ([client, admin], "client", [200, 401]),
        ([client, admin], "admin", [401, 200]),
    ] {
        assert_eq!(status(keys, "/v1/models", given).await, models, "{keys:?} {given}");
        assert_eq!(status(keys, "/flush_cache", given).await, flush_cache, "{keys:?} {given}");
    }
    // Before the method is looked at, and beside the methods there are.
    assert_eq!(status([client, admin], "/abort_request", "client").await, 401);
    assert_eq!(status([client, admin], "/abort_request", "admin").await, 405);
}

#[tokio::test]
async fn browsers_may_call() {
    let server = Server::answering("x");
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri("/v1/chat/completions")
        .header("origin", "http://example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let response = server.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = Server::answering("ab");
    server.post("/generate", json!({"text": "x"})).await;
    server.post("/generate", json!({"text": "xyz", "stream": true})).await;
    server.post("/generate", json!({"text": "x", "log_metrics": false})).await;
    server.post("/generate", json!({})).await;
    server.get("/no/such/route").await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
    let scheduler =
        "model_name=\"tiny\",engine_type=\"unified\",tp_rank=\"0\",pp_rank=\"0\",moe_ep_rank=\"0\"";
    for line in [
        format!("sglang:num_running_reqs{{{scheduler}}} 3"),
        format!("sglang:gen_throughput{{{scheduler}}} 12.5"),
        "sglang:prompt_tokens_total{model_name=\"tiny\",is_streaming=\"false\"} 1".to_owned(),
        "sglang:prompt_tokens_total{model_name=\"tiny\",is_streaming=\"true\"} 3".to_owned(),
        "sglang:generation_tokens_total{model_name=\"tiny\",is_streaming=\"true\"} 3".to_owned(),
        "sglang:num_requests_total{model_name=\"tiny\",is_streaming=\"true\"} 1".to_owned(),
        "sglang:e2e_request_latency_seconds_count{model_name=\"tiny\",is_streaming=\"true\"} 1"
            .to_owned(),
        "sglang:inter_token_latency_seconds_count{model_name=\"tiny\"} 4".to_owned(),
        "sglang:http_requests_total{endpoint=\"/generate\",method=\"POST\"} 4".to_owned(),
        "sglang:http_responses_total{endpoint=\"/generate\",status_code=\"400\",method=\"POST\"} 1"
            .to_owned(),
        "sglang:http_responses_total{endpoint=\"unmatched\",status_code=\"404\",method=\"GET\"} 1"
            .to_owned(),
    ] {
        assert!(answer.text.lines().any(|found| found == line), "{line}\n{}", answer.text);
    }
    let request = Request::get("/metrics").header("accept", "application/openmetrics-text");
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    assert!(answer.content_type.starts_with("application/openmetrics-text"));
    assert!(answer.text.ends_with("# EOF\n"));

    let config = server::ServerConfig { enable_metrics: false, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    assert_eq!(server.get("/metrics").await.status, 404);
}

#[tokio::test]
async fn openapi_lists_what_is_served() {
    let server = Server::answering("x");
    let paths = server.get("/openapi.json").await.json()["paths"].clone();
    let methods =
        |path: &str| -> Vec<String> { paths[path].as_object().unwrap().keys().cloned().collect() };
    assert_eq!(methods("/generate"), ["post", "put"]);
    assert_eq!(methods("/v1/messages"), ["post"]);
    let parameter = &paths["/v1/models/{id}"]["get"]["parameters"][0];
    assert_eq!((&parameter["name"], &parameter["in"]), (&json!("id"), &json!("path")));
    // What it lists is there: with no body, or an empty one, never 404 or 405.
    for (path, item) in paths.as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(path);
            let response = server.raw(request.body(Body::empty()).unwrap()).await;
            let status = response.status().as_u16();
            let is_unknown_name = path.contains('{');
            assert!(status != 405 && (status != 404 || is_unknown_name), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn routes_left_out_say_why() {
    let server = Server::answering("x");
    let answer = server.post("/load_lora_adapter", json!({})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["object"]), (501, &json!("error")));
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("/load_lora_adapter is not served here: "), "{message}");
    assert_eq!(server.get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn other_clouds_ways_to_ask() {
    let server = Server::answering("ab");
    let chat = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let answer = server.post("/invocations", chat).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "ab");
    let vertex = json!({"instances": [{"text": "a"}, {"text": "b"}],
                        "parameters": {"sampling_params": {"max_new_tokens": 9}}});
    let answer = server.post("/vertex_generate", vertex).await.json();
    let texts: Vec<_> =
        answer["predictions"].as_array().unwrap().iter().map(|p| &p["text"]).collect();
    assert_eq!(texts, ["ab", "ab"]);
    let empty = server.post("/vertex_generate", json!({"instances": []})).await;
    assert_eq!(empty.json(), json!([]));
    for (body, name) in [
        (json!({"instances": [{"text": "a"}], "parameters": {"stream": true}}), "stream"),
        (json!({"instances": [{"text": "a", "image_data": "x"}]}), "image_data"),
    ] {
        let refused = server.post("/vertex_generate", body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text.contains(name), "{}", refused.text);
    }
}
