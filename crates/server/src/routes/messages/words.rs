//! Answers and streams as Anthropic words them.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use protocol::anthropic::{
    Delta, Event, MessageEnd, MessagesRequest, MessagesResponse, OutputBlock, Usage,
};
use serde_json::{Map, Value};
use types::{FinishReason, MatchedStop};
use uuid::Uuid;

use super::error_body;
use crate::{
    answer::{AnswerFormat, AnswerStream, Call, Part},
    error::ApiError,
    generation::{Sequence, Update},
    sse::{Frames, StreamFormat},
};

/// How answers and events are worded.
pub(super) struct Words {
    id: String,
    model: String,
    pub(super) format: AnswerFormat,
    /// The client's; a template has stop strings too.
    stop_sequences: Vec<String>,
    /// False: reasoning is announced, and its text left out.
    shows_thinking: bool,
    blocks: Blocks,
}

/// The blocks of a stream.
#[derive(Default)]
struct Blocks {
    stream: Option<AnswerStream>,
    open: Option<Kind>,
    /// Number of the open block, or of the next.
    index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    ToolUse,
}

impl Words {
    pub(super) fn new(request: &MessagesRequest) -> Self {
        let display = request.thinking.as_ref().and_then(|thinking| thinking.display.as_deref());
        let stop = request.stop_sequences.as_ref();
        Self {
            id: format!("msg_{}", Uuid::new_v4().simple()),
            model: request.model.clone(),
            format: AnswerFormat::default(),
            stop_sequences: stop.map(|stop| stop.strings.clone()).unwrap_or_default(),
            shows_thinking: display != Some("omitted"),
            blocks: Blocks::default(),
        }
    }

    pub(super) fn response(&self, sequences: &[Sequence]) -> Response {
        let Some(sequence) = sequences.first() else {
            return super::MessagesError(ApiError::engine_gone()).into_response();
        };
        let answer = self.format.parse(sequence.text());
        let mut content = Vec::new();
        if !answer.reasoning.is_empty() {
            let thinking = if self.shows_thinking { answer.reasoning.as_str() } else { "" };
            content.push(OutputBlock::Thinking { thinking });
        }
        if !answer.content.is_empty() {
            content.push(OutputBlock::Text { text: &answer.content });
        }
        content.extend(answer.calls.iter().map(tool_use));
        if content.is_empty() {
            content.push(OutputBlock::Text { text: "" });
        }
        let end = self.end_of(sequence, !answer.calls.is_empty());
        Json(self.message(content, end, usage(sequence))).into_response()
    }

    fn message<'a>(
        &'a self,
        content: Vec<OutputBlock<'a>>,
        end: MessageEnd<'a>,
        usage: Usage,
    ) -> MessagesResponse<'a> {
        MessagesResponse {
            id: &self.id,
            kind: "message",
            role: "assistant",
            content,
            model: &self.model,
            end,
            usage,
        }
    }

    fn end_of<'a>(&self, sequence: &'a Sequence, has_calls: bool) -> MessageEnd<'a> {
        let stop = |reason| MessageEnd { stop_reason: Some(reason), stop_sequence: None };
        match (sequence.finish_reason(), sequence.matched_stop()) {
            (Some(FinishReason::Length { .. }), _) => stop("max_tokens"),
            _ if has_calls => stop("tool_use"),
            (_, Some(MatchedStop::Text(text))) if self.stop_sequences.contains(text) => {
                MessageEnd { stop_sequence: Some(text), ..stop("stop_sequence") }
            }
            _ => stop("end_turn"),
        }
    }

    /// What is new in the answer, and whether it has complete calls.
    fn parts(&mut self, sequence: &Sequence, update: &Update) -> (Vec<Part>, bool) {
        let stream = self.blocks.stream.get_or_insert_with(|| AnswerStream::new(&self.format));
        (stream.advance(sequence, update), stream.has_calls())
    }
}

fn usage(sequence: &Sequence) -> Usage {
    let counts = sequence.counts();
    Usage {
        input_tokens: counts.prompt_tokens.saturating_sub(counts.cached_tokens),
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: counts.cached_tokens,
        output_tokens: counts.completion_tokens,
    }
}

fn tool_use(call: &Call) -> OutputBlock<'_> {
    let arguments: Option<Map<String, Value>> = serde_json::from_str(&call.arguments).ok();
    if arguments.is_none() {
        tracing::warn!(name = call.name, "the arguments of a call are no JSON object");
    }
    OutputBlock::ToolUse { id: &call.id, name: &call.name, input: arguments.unwrap_or_default() }
}

fn push(event: &Event<'_>, frames: &mut Frames) {
    frames.push_named(event.name(), event);
}

impl Blocks {
    fn add(&mut self, part: &Part, shows_thinking: bool, frames: &mut Frames) {
        match part {
            Part::Reasoning(thinking) => {
                self.open(Kind::Thinking, OutputBlock::Thinking { thinking: "" }, frames);
                if shows_thinking {
                    self.push_delta(Delta::ThinkingDelta { thinking }, frames);
                }
            }
            Part::Content(text) => {
                self.open(Kind::Text, OutputBlock::Text { text: "" }, frames);
                self.push_delta(Delta::TextDelta { text }, frames);
            }
            Part::Call { id, name, .. } => {
                self.close(frames);
                let call = OutputBlock::ToolUse { id, name, input: Map::new() };
                self.open(Kind::ToolUse, call, frames);
            }
            Part::Arguments { json, .. } => {
                self.push_delta(Delta::InputJsonDelta { partial_json: json }, frames);
            }
        }
    }

    fn open(&mut self, kind: Kind, content_block: OutputBlock<'_>, frames: &mut Frames) {
        if self.open == Some(kind) {
            return;
        }
        self.close(frames);
        self.open = Some(kind);
        push(&Event::ContentBlockStart { index: self.index, content_block }, frames);
    }

    fn push_delta(&self, delta: Delta<'_>, frames: &mut Frames) {
        push(&Event::ContentBlockDelta { index: self.index, delta }, frames);
    }

    fn close(&mut self, frames: &mut Frames) {
        if self.open.take().is_some() {
            push(&Event::ContentBlockStop { index: self.index }, frames);
            self.index += 1;
        }
    }
}

impl StreamFormat for Words {
    const LAST_FRAME: &'static [u8] = b"";

    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames) {
        if let Some(error) = sequence.finish_reason().and_then(ApiError::from_abort) {
            return self.error(&error, frames);
        }
        if update.is_first {
            let usage = Usage { output_tokens: 0, ..usage(sequence) };
            let message = self.message(Vec::new(), MessageEnd::default(), usage);
            push(&Event::MessageStart { message }, frames);
            push(&Event::Ping, frames);
        }
        let (parts, has_calls) = self.parts(sequence, update);
        for part in &parts {
            self.blocks.add(part, self.shows_thinking, frames);
        }
        if sequence.finish_reason().is_some() {
            self.blocks.close(frames);
            let delta = self.end_of(sequence, has_calls);
            push(&Event::MessageDelta { delta, usage: usage(sequence) }, frames);
            push(&Event::MessageStop, frames);
        }
    }

    fn end(&mut self, _: &[Sequence], _: &mut Frames) {}

    fn error(&mut self, error: &ApiError, frames: &mut Frames) {
        self.blocks.close(frames);
        push(&Event::Error { error: error_body(error) }, frames);
    }
}
