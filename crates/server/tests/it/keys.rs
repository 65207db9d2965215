//! Whoever has no key, or a wrong one, gets no further than the door.

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::json;

use crate::support::{Answer, FakeEngine, Server, config};

/// Served paths with a method, from the page of routes.
fn served() -> Vec<(Method, String)> {
    let page = include_str!("../../../../docs/compat/routes.md");
    let mut served = Vec::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", methods, paths, "served", _, ""] = cells[..] else { continue };
        let paths = paths.split('`').skip(1).step_by(2);
        for path in paths.filter(|path| !path.starts_with("/console/")) {
            let path = path.replace("{id}", "x").replace("{*id}", "x");
            let methods = methods.split(", ").map(|method| method.parse().unwrap());
            served.extend(methods.map(|method| (method, path.clone())));
        }
    }
    served
}

fn request(method: &Method, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request =
        Request::builder().method(method).uri(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = json!({"text": "x", "prompt": "x", "input": "x", "model": "m", "max_tokens": 1,
                      "messages": [{"role": "user", "content": "x"}]});
    request.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn a_wrong_key_never_reaches_the_engine() {
    let config = server::ServerConfig { api_key: Some("secret".to_owned()), ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    let long = format!("Bearer secret{}", "t".repeat(10_000));
    let wrong: [&[(&str, &str)]; 9] = [
        &[],
        &[("authorization", "")],
        &[("authorization", "secret")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer secre")],
        &[("authorization", "Bearer secret ."), ("x-api-key", "Secret")],
        &[("authorization", &long)],
        &[("x-api-key", "secret\t!")],
        &[("cookie", "key=secret"), ("proxy-authorization", "Bearer secret")],
    ];
    let open = ["/health", "/health_generate", "/ready", "/metrics"];
    let served = served();
    assert!(served.len() > 60, "{served:?}");
    for (method, path) in served.iter().filter(|(_, path)| !open.contains(&path.as_str())) {
        for headers in wrong {
            let answer = server.send(request(method, path, headers)).await;
            assert_eq!(answer.status, 401, "{method} {path} {headers:?}");
        }
    }
    assert!(server.engine.has_seen_nothing().await);

    let right = [("authorization", "Bearer secret")];
    let answer = server.send(request(&Method::POST, "/generate", &right)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(!server.engine.has_seen_nothing().await);
}
