//! Streamed answers: frames, and the stream that makes them. Most are
//! server-sent events; Ollama's are lines of JSON.

use std::collections::VecDeque;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use crate::{
    error::ApiError,
    generation::{Sequence, SequenceSet, Update},
};

/// Frames that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Frames(VecDeque<Bytes>);

impl Frames {
    /// `data: {json}`.
    pub(crate) fn push(&mut self, event: &impl Serialize) {
        let mut frame = b"data: ".to_vec();
        serde_json::to_writer(&mut frame, event).expect("our own types serialise");
        frame.extend_from_slice(b"\n\n");
        self.0.push_back(frame.into());
    }

    /// `event: {name}` and `data: {json}`.
    pub(crate) fn push_named(&mut self, name: &str, event: &impl Serialize) {
        let mut frame = format!("event: {name}\ndata: ").into_bytes();
        serde_json::to_writer(&mut frame, event).expect("our own types serialise");
        frame.extend_from_slice(b"\n\n");
        self.0.push_back(frame.into());
    }

    /// `{json}` on a line of its own.
    pub(crate) fn push_line(&mut self, event: &impl Serialize) {
        let mut line = serde_json::to_vec(event).expect("our own types serialise");
        line.push(b'\n');
        self.0.push_back(line.into());
    }
}

/// How one endpoint words its stream.
pub(crate) trait StreamFormat: Send + 'static {
    /// Media type of the stream.
    const CONTENT_TYPE: &'static str = "text/event-stream; charset=utf-8";
    /// What closes a stream, failed ones too.
    const LAST_FRAME: &'static [u8] = b"data: [DONE]\n\n";
    /// Before any token.
    fn begin(&mut self, _frames: &mut Frames) {}
    /// `sequence` has news.
    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames);
    /// Every sequence has ended.
    fn end(&mut self, sequences: &[Sequence], frames: &mut Frames);
    /// The stream cannot go on.
    fn error(&mut self, error: &ApiError, frames: &mut Frames);
}

struct Events<F> {
    sequences: SequenceSet,
    format: F,
    frames: Frames,
    is_done: bool,
}

impl<F: StreamFormat> Events<F> {
    async fn next(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Self)> {
        loop {
            if let Some(frame) = self.frames.0.pop_front() {
                return Some((Ok(frame), self));
            }
            if self.is_done {
                return None;
            }
            self.advance().await;
        }
    }

    async fn advance(&mut self) {
        match self.sequences.next().await {
            Some(Ok((sequence, update))) => {
                self.format.update(sequence, &update, &mut self.frames);
            }
            Some(Err(error)) => {
                self.format.error(&error, &mut self.frames);
                self.finish();
            }
            None => {
                self.format.end(self.sequences.finished(), &mut self.frames);
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        // Their names are free before the client knows that it is over.
        self.sequences = SequenceSet::default();
        if !F::LAST_FRAME.is_empty() {
            self.frames.0.push_back(Bytes::from_static(F::LAST_FRAME));
        }
        self.is_done = true;
    }
}

/// A response that streams `sequences`. Dropping it aborts what is live.
pub(crate) fn respond<F: StreamFormat>(sequences: SequenceSet, mut format: F) -> Response {
    let mut frames = Frames::default();
    format.begin(&mut frames);
    let events = Events { sequences, format, frames, is_done: false };
    let mut response = Response::new(Body::from_stream(stream::unfold(events, Events::next)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(F::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would turn a stream into one late answer.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
