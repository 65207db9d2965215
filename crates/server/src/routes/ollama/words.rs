//! Answers and streams as Ollama words them.

use axum::{
    Json,
    response::{IntoResponse, Response as HttpResponse},
};
use protocol::ollama::{End, FunctionCall, Response, ResponseMessage, ToolCall};
use serde_json::json;
use types::FinishReason;

use crate::{
    AppState,
    answer::{AnswerFormat, AnswerStream, Part},
    error::ApiError,
    generation::{Sequence, Update},
    sse::{Frames, StreamFormat},
    utc::Utc,
};

/// Where a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Generate,
}

/// How answers and lines are worded.
pub(super) struct Words {
    model: String,
    route: Route,
    pub(super) format: AnswerFormat,
    stream: Option<AnswerStream>,
    /// Calls are sent whole: the name, and the arguments so far.
    call: Option<(String, String)>,
}

/// What a line says.
#[derive(Default)]
struct Piece {
    content: String,
    thinking: String,
    calls: Vec<ToolCall>,
    end: Option<End>,
}

impl Words {
    pub(super) fn new(state: &AppState, route: Route) -> Self {
        Self {
            model: state.config.served_model_name.clone(),
            route,
            format: AnswerFormat::default(),
            stream: None,
            call: None,
        }
    }

    /// The answer to a request for nothing but the model.
    pub(super) fn loaded(&self) -> HttpResponse {
        let end = Some(End { done_reason: "load", ..End::default() });
        Json(self.line(&Piece { end, ..Piece::default() }, &now())).into_response()
    }

    /// The whole answer at once.
    pub(super) fn whole(&self, sequence: &Sequence) -> serde_json::Value {
        let answer = self.format.parse(sequence.text());
        let calls = answer.calls.into_iter();
        let piece = Piece {
            content: answer.content,
            thinking: answer.reasoning,
            calls: calls.map(|call| tool_call(call.name, &call.arguments)).collect(),
            end: Some(end(sequence)),
        };
        json!(self.line(&piece, &now()))
    }

    fn line<'a>(&'a self, piece: &'a Piece, created_at: &'a str) -> Response<'a> {
        let thinking = Some(piece.thinking.as_str()).filter(|text| !text.is_empty());
        let is_chat = self.route == Route::Chat;
        let message = ResponseMessage {
            role: "assistant",
            content: &piece.content,
            thinking,
            tool_calls: piece.calls.clone(),
        };
        Response {
            model: &self.model,
            created_at,
            message: is_chat.then_some(message),
            response: (!is_chat).then_some(&piece.content),
            thinking: thinking.filter(|_| !is_chat),
            done: piece.end.is_some(),
            end: piece.end,
        }
    }

    fn push(&self, piece: &Piece, frames: &mut Frames) {
        frames.push_line(&self.line(piece, &now()));
    }

    fn push_part(&mut self, part: Part, frames: &mut Frames) {
        match part {
            Part::Reasoning(thinking) => {
                self.push(&Piece { thinking, ..Piece::default() }, frames);
            }
            Part::Content(content) => {
                self.push_call(frames);
                self.push(&Piece { content, ..Piece::default() }, frames);
            }
            Part::Call { name, .. } => {
                self.push_call(frames);
                self.call = Some((name, String::new()));
            }
            Part::Arguments { json, .. } => {
                if let Some((_, arguments)) = &mut self.call {
                    arguments.push_str(&json);
                }
            }
        }
    }

    fn push_call(&mut self, frames: &mut Frames) {
        if let Some((name, arguments)) = self.call.take() {
            let calls = vec![tool_call(name, &arguments)];
            self.push(&Piece { calls, ..Piece::default() }, frames);
        }
    }
}

fn now() -> String {
    Utc::now().rfc3339()
}

fn tool_call(name: String, arguments: &str) -> ToolCall {
    let arguments = serde_json::from_str(arguments).unwrap_or_else(|error| {
        tracing::warn!(name, %error, "the arguments of a call are no JSON object");
        serde_json::Map::new()
    });
    ToolCall { function: FunctionCall { name, arguments } }
}

fn end(sequence: &Sequence) -> End {
    let nanos = |seconds: Option<f64>| (seconds.unwrap_or_default() * 1e9) as u64;
    let counts = sequence.counts();
    let total = nanos(sequence.e2e_latency());
    let prompt = nanos(sequence.first_token_latency()).min(total);
    End {
        done_reason: sequence.finish_reason().map_or("stop", FinishReason::openai_name),
        total_duration: total,
        load_duration: 0,
        prompt_eval_count: counts.prompt_tokens,
        prompt_eval_duration: prompt,
        eval_count: counts.completion_tokens,
        eval_duration: total - prompt,
    }
}

impl StreamFormat for Words {
    const CONTENT_TYPE: &'static str = "application/x-ndjson";
    const LAST_FRAME: &'static [u8] = b"";

    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames) {
        let finish_reason = sequence.finish_reason();
        if let Some(error) = finish_reason.and_then(ApiError::from_abort) {
            return self.error(&error, frames);
        }
        let stream = self.stream.get_or_insert_with(|| AnswerStream::new(&self.format));
        for part in stream.advance(sequence, update) {
            self.push_part(part, frames);
        }
        if let Some(reason) = finish_reason {
            if !matches!(reason, FinishReason::Abort { .. }) {
                self.push_call(frames);
            }
            self.push(&Piece { end: Some(end(sequence)), ..Piece::default() }, frames);
        }
    }

    fn end(&mut self, _: &[Sequence], _: &mut Frames) {}

    fn error(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.push_line(&json!({"error": error.message}));
    }
}
