//! A server with a fake engine behind it, and ways to talk to it.

mod engine;
mod text;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode, header},
};
use serde_json::{Value, json};
use server::{AnswerParsers, AppState, ServerConfig, router};
use tokenizer::ChatTemplate;
use tower::ServiceExt;
use types::EngineHandle;

pub(crate) use engine::{Answer, FakeEngine, Seen};
pub(crate) use text::{bytes_as_ids, chat_template, tokenizer, tokenizer_with};

/// Nothing here takes long; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    pub(crate) state: AppState,
    pub(crate) engine: FakeEngine,
    router: Router,
}

/// The answer to one request.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// Payloads of the stream's events; the last must be `[DONE]`, left out.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut payloads: Vec<&str> = self
            .text
            .split_terminator("\n\n")
            .map(|frame| frame.strip_prefix("data: ").expect("a data frame"))
            .collect();
        assert_eq!(payloads.pop(), Some("[DONE]"), "{}", self.text);
        payloads.iter().map(|payload| serde_json::from_str(payload).unwrap()).collect()
    }

    /// The events with what changes from run to run left out, one a line.
    pub(crate) fn transcript(&self) -> String {
        assert_eq!(self.content_type, "text/event-stream; charset=utf-8");
        self.events().into_iter().map(|event| format!("{}\n", redacted(event))).collect()
    }

    pub(crate) fn redacted_json(&self) -> String {
        redacted(self.json()).to_string()
    }
}

fn redacted(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                match key.as_str() {
                    "created" | "e2e_latency" | "response_sent_to_client_ts" => {
                        assert!(value.as_f64().is_some_and(|number| number >= 0.0));
                        *value = json!("[redacted]");
                    }
                    _ => *value = redacted(value.take()),
                }
            }
        }
        Value::Array(values) => {
            for value in values {
                *value = redacted(value.take());
            }
        }
        _ => {}
    }
    value
}

impl Server {
    pub(crate) fn new(engine: FakeEngine) -> Self {
        Self::with_config(engine, config())
    }

    pub(crate) fn with_config(engine: FakeEngine, config: ServerConfig) -> Self {
        Self::with_all(engine, config, chat_template())
    }

    pub(crate) fn with_template(engine: FakeEngine, template: ChatTemplate) -> Self {
        Self::with_all(engine, config(), template)
    }

    fn with_all(engine: FakeEngine, config: ServerConfig, template: ChatTemplate) -> Self {
        let handle: EngineHandle = engine.handle();
        let state = AppState::new(config, handle, tokenizer(), Some(template));
        Self::of_state(state, engine)
    }

    pub(crate) fn of_state(state: AppState, engine: FakeEngine) -> Self {
        Self { router: router(state.clone()), state, engine }
    }

    /// Answers every prompt with `text`, a byte a token.
    pub(crate) fn answering(text: &'static str) -> Self {
        Self::new(FakeEngine::start(move |_| Answer::text(text)))
    }

    /// Answers every prompt with `pieces`, through the parsers of these names.
    pub(crate) fn parsing(
        reasoning: &str,
        tool_call: &str,
        pieces: &'static [&'static str],
    ) -> Self {
        let parsers = AnswerParsers::choose(reasoning, tool_call, None, &tokenizer()).unwrap();
        let config = ServerConfig { parsers, ..config() };
        Self::with_config(FakeEngine::start(move |_| Answer::pieces(pieces)), config)
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> Response<Body> {
        let answer = self.router.clone().oneshot(request);
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time").unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.raw(request).await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, to_bytes(body, usize::MAX)).await;
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        Answered {
            status: parts.status,
            content_type: content_type.map_or("", |v| v.to_str().unwrap()).to_owned(),
            text: String::from_utf8(body.expect("a body in time").unwrap().to_vec()).unwrap(),
        }
    }

    pub(crate) async fn post_text(&self, path: &str, body: impl Into<Body>) -> Answered {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answered {
        self.post_text(path, body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }
}

pub(crate) fn config() -> ServerConfig {
    let args = json!({"model_path": "models/tiny", "load_format": "auto", "api_key": "secret"});
    let Value::Object(server_args) = args else { unreachable!("an object") };
    ServerConfig {
        served_model_name: "tiny".to_owned(),
        tokenizer_path: "models/tiny".to_owned(),
        health_timeout: Duration::from_millis(300),
        max_body_bytes: 1 << 20,
        server_args,
        version: "1.2.3".to_owned(),
        ..ServerConfig::default()
    }
}
