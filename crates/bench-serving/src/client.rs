//! One request over HTTP/1.1, timed as it is read.
//!
//! Each request opens a connection of its own, as upstream's client does: what
//! connecting costs is part of what a client sees.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    Arrival, Backend, BaseUrl, BenchError, Connect, RequestOutput,
    backend::{self, BodyOptions, Chunk},
    history::History,
    sse::SseDecoder,
};

/// What all requests of a benchmark have in common.
#[derive(Debug, Clone)]
pub struct RequestShape {
    /// Which interface.
    pub backend: Backend,
    /// Named in the request; empty where no model is named.
    pub model: String,
    /// Server-sent events, or one answer at the end.
    pub stream: bool,
    /// Generation goes on to the full length.
    pub ignore_eos: bool,
    /// Merged into every body, key by key; an object.
    pub extra_request_body: Value,
}

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    connect: Arc<dyn Connect>,
    url: BaseUrl,
    api_key: Option<String>,
}

impl Client {
    /// A client of the server at `url` that sends `api_key` as a bearer token.
    pub fn new(connect: Arc<dyn Connect>, url: BaseUrl, api_key: Option<String>) -> Self {
        Self { connect, url, api_key }
    }

    /// The name of the first model that the server lists.
    ///
    /// # Errors
    /// If it lists none, or cannot be reached.
    pub async fn first_model(&self) -> Result<String, BenchError> {
        let path = "/v1/models";
        let failed = |reason: String| BenchError::Server { path: path.to_owned(), reason };
        let bytes = self.whole(Method::GET, path, Bytes::new()).await.map_err(failed)?;
        let list: Value =
            serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        let name = list.pointer("/data/0/id").and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| failed("it lists no model".to_owned()))
    }

    /// Empties SGLang's prefix cache.
    ///
    /// # Errors
    /// If the server does not, or cannot be reached.
    pub async fn flush_cache(&self) -> Result<(), BenchError> {
        let path = "/flush_cache";
        let result = self.whole(Method::POST, path, Bytes::new()).await;
        result.map_err(|reason| BenchError::Server { path: path.to_owned(), reason }).map(drop)
    }

    /// Runs one request to its end; what fails is told in the output.
    pub(crate) async fn generate(
        &self,
        shape: &RequestShape,
        history: &History,
        output_len: usize,
    ) -> RequestOutput {
        let RequestShape { backend, model, stream, ignore_eos, extra_request_body } = shape;
        let options = BodyOptions { model, output_len, stream: *stream, ignore_eos: *ignore_eos };
        let mut body = backend::body(backend.api(), history, options);
        backend::merge(&mut body, extra_request_body);
        let body = Bytes::from(body.to_string());
        let mut reading = Reading::new(*backend);
        let result = self.read(&mut reading, body).await;
        reading.finish(result)
    }

    async fn read(&self, reading: &mut Reading, body: Bytes) -> Result<(), String> {
        let response = self.send(Method::POST, reading.backend.path(), body).await?;
        let status = response.status();
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if status != StatusCode::OK || !is_stream {
            let bytes = check(status, collect(response).await?)?;
            return reading.take(&bytes);
        }
        let mut body = response.into_body();
        let mut events = SseDecoder::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("the stream broke off: {error}"))?;
            let Some(bytes) = frame.data_ref() else { continue };
            events.push(bytes);
            while let Some(payload) = events.next() {
                if payload == b"[DONE]" {
                    reading.is_done = true;
                } else {
                    reading.take(payload)?;
                }
            }
        }
        if reading.is_done { Ok(()) } else { Err("the stream ended without [DONE]".to_owned()) }
    }

    async fn whole(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, String> {
        let response = self.send(method, path, body).await?;
        check(response.status(), collect(response).await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let io =
            self.connect.connect().await.map_err(|error| format!("cannot connect: {error}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| error.to_string())?;
        // It ends with the answer; whatever fails on it shows in the answer too.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url.prefix))
            .header(HOST, &self.url.authority)
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.api_key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(|error| error.to_string())
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, String> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes())
}

fn check(status: StatusCode, body: Bytes) -> Result<Bytes, String> {
    if status.is_success() {
        return Ok(body);
    }
    let reason = match serde_json::from_slice(&body) {
        Ok(error) => backend::error_text(&error),
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    Err(format!("HTTP {}: {reason}", status.as_u16()))
}

/// An answer on its way.
struct Reading {
    backend: Backend,
    sent: Instant,
    output: RequestOutput,
    /// `[DONE]` was seen.
    is_done: bool,
    /// Tokens in all arrivals.
    seen: usize,
    /// As the server counts.
    counted: Option<usize>,
}

impl Reading {
    fn new(backend: Backend) -> Self {
        Self {
            backend,
            sent: Instant::now(),
            output: RequestOutput::default(),
            is_done: false,
            seen: 0,
            counted: None,
        }
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), String> {
        let at = self.sent.elapsed();
        let chunk = backend::parse(self.backend.api(), payload)?;
        if let Some(error) = chunk.error {
            return Err(error);
        }
        self.count(at, &chunk);
        let output = &mut self.output;
        if chunk.is_whole {
            (output.text, output.output_ids) = (chunk.text, chunk.output_ids);
        } else {
            output.text.push_str(&chunk.text);
            output.output_ids.extend(chunk.output_ids);
        }
        output.prompt_len = chunk.usage.prompt_tokens.unwrap_or(output.prompt_len);
        output.cached_tokens = chunk.usage.cached_tokens.unwrap_or(output.cached_tokens);
        Ok(())
    }

    /// A chunk without text may hold tokens all the same (half a character), but
    /// only a count can tell.
    fn count(&mut self, at: Duration, chunk: &Chunk) {
        let has_text = !chunk.text.is_empty();
        let tokens = match chunk.usage.completion_tokens {
            Some(count) if self.backend.api() == backend::Api::Generate || has_text => {
                count.saturating_sub(self.seen)
            }
            _ => usize::from(has_text),
        };
        self.counted = chunk.usage.completion_tokens.or(self.counted);
        if tokens > 0 {
            self.output.arrivals.push(Arrival { at, tokens });
            self.seen += tokens;
        }
    }

    fn finish(mut self, result: Result<(), String>) -> RequestOutput {
        if let Err(error) = result {
            return RequestOutput::failed(error);
        }
        self.output.latency = self.sent.elapsed();
        self.output.output_len = self.counted.unwrap_or(self.seen);
        self.output
    }
}
