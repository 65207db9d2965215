//! The page for people: who gets it, and with which headers.

use axum::{
    body::Body,
    http::{Method, Request, header},
};

use crate::support::{Answer, FakeEngine, Server, config};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn get(path: &str, accept: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path);
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn browsers_get_the_page_and_others_a_line() {
    let server = Server::answering("x");
    let page = server.send(get("/", Some(BROWSER))).await;
    assert_eq!(
        (page.status.as_u16(), page.content_type.as_str()),
        (200, "text/html; charset=utf-8")
    );
    assert!(page.text.starts_with("<!doctype html>"), "{}", page.text);
    for accept in [None, Some("*/*"), Some("application/json")] {
        let line = server.send(get("/", accept)).await;
        assert_eq!(line.content_type, "text/plain; charset=utf-8");
        assert_eq!(line.text, "SGLang is running", "{accept:?}");
    }
    let line = server.raw(get("/", None)).await;
    assert_eq!(line.headers()[header::VARY], "accept");
}

#[tokio::test]
async fn files_come_with_a_strict_policy() {
    let server = Server::answering("x");
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/console/console.css", "text/css; charset=utf-8"),
        ("/console/console.js", "text/javascript; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let response = server.raw(get(path, Some(BROWSER))).await;
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], content_type);
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn there_is_nothing_else_in_the_folder() {
    let server = Server::answering("x");
    for path in ["/console/nothing.js", "/console/mod.rs", "/console/..%2Fmod.rs", "/console/"] {
        let answer = server.send(get(path, Some(BROWSER))).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["message"], "Not Found");
    }
    let post = Request::post("/console/console.js").body(Body::empty()).unwrap();
    assert_eq!(server.send(post).await.status, 405);
}

#[tokio::test]
async fn the_page_needs_no_key_and_what_it_asks_for_does() {
    let config = server::ServerConfig { api_key: Some("secret".to_owned()), ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    for path in ["/", "/console/console.js"] {
        assert_eq!(server.send(get(path, Some(BROWSER))).await.status, 200, "{path}");
    }
    for path in ["/server_info", "/v1/models", "/consoles"] {
        assert_eq!(server.send(get(path, Some(BROWSER))).await.status, 401, "{path}");
    }
    assert_eq!(server.send(get("/", None)).await.status, 401);
    let post = Request::builder().method(Method::POST).uri("/").header(header::ACCEPT, BROWSER);
    assert_eq!(server.send(post.body(Body::empty()).unwrap()).await.status, 401);
}
