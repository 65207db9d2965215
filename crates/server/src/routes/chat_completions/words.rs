//! Answers and streams as OpenAI words them.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use protocol::openai::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatDelta, ChatLogprobs, ChatResponse,
    ChatResponseMessage, FunctionCall, Metadata, ToolCall,
};
use serde_json::json;
use types::{FinishReason, MatchedStop};

use super::extras::Extras;
use crate::{
    AppState,
    answer::{Answer, AnswerFormat, AnswerStream, Call, Part},
    error::ApiError,
    generation::{Sequence, Update},
    routes::{generate::meta_info, usage::UsagePolicy},
    sse::{Frames, StreamFormat},
};

/// How answers and chunks are worded.
pub(super) struct Words {
    pub(super) usage: UsagePolicy,
    pub(super) model: String,
    pub(super) created: u64,
    pub(super) format: AnswerFormat,
    pub(super) extras: Extras,
    /// One for each sample, made with its first piece.
    pub(super) streams: Vec<Option<AnswerStream>>,
}

const TOOL_CALLS: &str = "tool_calls";

/// `tool_calls` for an answer that ended with calls of its own accord.
fn finish_name(reason: &FinishReason, has_calls: bool) -> &'static str {
    match reason {
        FinishReason::Stop { .. } if has_calls => TOOL_CALLS,
        reason => reason.openai_name(),
    }
}

fn tool_call<'a>(
    index: usize,
    id: Option<&'a str>,
    name: Option<&'a str>,
    arguments: &'a str,
) -> ToolCall<'a> {
    ToolCall { id, index, kind: "function", function: FunctionCall { name, arguments } }
}

fn choice<'a>(
    words: &Words,
    (sequence, answer): (&'a Sequence, &'a Answer),
    weight_version: &'a str,
) -> ChatChoice<'a> {
    let extras = &words.extras;
    let whole = |(index, call): (usize, &'a Call)| {
        tool_call(index, Some(&call.id), Some(&call.name), &call.arguments)
    };
    let calls: Vec<_> = answer.calls.iter().enumerate().map(whole).collect();
    let reason = sequence.finish_reason().map(|reason| finish_name(reason, !calls.is_empty()));
    ChatChoice {
        index: sequence.index(),
        message: ChatResponseMessage {
            role: "assistant",
            content: &answer.content,
            reasoning_content: Some(answer.reasoning.as_str()).filter(|text| !text.is_empty()),
            tool_calls: Some(calls).filter(|calls| !calls.is_empty()),
        },
        logprobs: sequence.logprobs().map(|(said, tokens)| said.chat(&tokens, 0)),
        finish_reason: reason,
        // Upstream tells the token in streams, but not here.
        matched_stop: sequence.matched_stop().filter(|_| reason != Some(TOOL_CALLS)),
        prompt_token_ids: extras.prompt_token_ids.then(|| sequence.prompt_ids()),
        response_token_ids: extras.token_ids.then(|| sequence.output_ids()),
        meta_info: extras.meta_info.then(|| meta_info(sequence, &words.usage, weight_version, 0)),
    }
}

impl Words {
    pub(super) fn response(&self, state: &AppState, sequences: &[Sequence]) -> Response {
        let answers: Vec<Answer> =
            sequences.iter().map(|sequence| self.format.parse(sequence.text())).collect();
        let weight_version = state.weight_version();
        let choices = sequences.iter().zip(&answers);
        let response = ChatResponse {
            id: sequences.first().map_or("", Sequence::rid),
            object: "chat.completion",
            created: self.created,
            model: &self.model,
            choices: choices.map(|said| choice(self, said, &weight_version)).collect(),
            usage: self.usage.total(sequences),
            metadata: Metadata { weight_version: weight_version.clone() },
            sglext: self.extras.sglext(&sequences.iter().collect::<Vec<_>>()),
        };
        Json(response).into_response()
    }

    fn chunk<'a>(
        &'a self,
        sequence: &'a Sequence,
        choices: Vec<ChatChunkChoice<'a>>,
    ) -> ChatChunk<'a> {
        ChatChunk {
            id: sequence.rid(),
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.usage.chunk(sequence),
            sglext: None,
        }
    }

    fn push_choice(
        &self,
        sequence: &Sequence,
        (delta, logprobs): (ChatDelta<'_>, Option<ChatLogprobs>),
        (finish_reason, matched_stop): (Option<&'static str>, Option<&MatchedStop>),
        frames: &mut Frames,
    ) {
        let index = sequence.index();
        let choice = ChatChunkChoice { index, delta, logprobs, finish_reason, matched_stop };
        frames.push(&self.chunk(sequence, vec![choice]));
    }

    fn push_delta(
        &self,
        sequence: &Sequence,
        delta: (ChatDelta<'_>, Option<ChatLogprobs>),
        frames: &mut Frames,
    ) {
        self.push_choice(sequence, delta, (None, None), frames);
    }

    fn push_part(
        &self,
        sequence: &Sequence,
        (part, logprobs): (&Part, Option<ChatLogprobs>),
        frames: &mut Frames,
    ) {
        let delta = match part {
            Part::Reasoning(text) => {
                ChatDelta { reasoning_content: Some(text), ..ChatDelta::default() }
            }
            Part::Content(text) => ChatDelta { content: Some(text), ..ChatDelta::default() },
            Part::Call { index, id, name } => {
                let call = tool_call(*index, Some(id), Some(name), "");
                ChatDelta { tool_calls: Some([call]), ..ChatDelta::default() }
            }
            Part::Arguments { index, json } => {
                let call = tool_call(*index, None, None, json);
                ChatDelta { tool_calls: Some([call]), ..ChatDelta::default() }
            }
        };
        self.push_delta(sequence, (delta, logprobs), frames);
    }

    /// What is new in the answer, and whether it has complete calls.
    fn parts(&mut self, sequence: &Sequence, update: &Update) -> (Vec<Part>, bool) {
        let index = sequence.index();
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, || None);
        }
        let stream = self.streams[index].get_or_insert_with(|| AnswerStream::new(&self.format));
        (stream.advance(sequence, update), stream.has_calls())
    }
}

impl StreamFormat for Words {
    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames) {
        let finish_reason = sequence.finish_reason();
        if let Some(error) = finish_reason.and_then(ApiError::from_abort) {
            return self.error(&error, frames);
        }
        if update.is_first {
            let role = Some("assistant");
            let delta = ChatDelta { role, content: Some(""), ..ChatDelta::default() };
            self.push_delta(sequence, (delta, None), frames);
        }
        let (mut parts, has_calls) = self.parts(sequence, update);
        let logprobs = sequence.logprobs();
        let mut logprobs = logprobs.map(|(said, tokens)| said.chat(&tokens, update.ids_from));
        // Tokens whose text is held back, or is none, have theirs all the same.
        if parts.is_empty() && logprobs.as_ref().is_some_and(|said| !said.content.is_empty()) {
            parts.push(Part::Content(String::new()));
        }
        for part in &parts {
            self.push_part(sequence, (part, logprobs.take()), frames);
        }
        if let Some(reason) = finish_reason {
            let end = (Some(finish_name(reason, has_calls)), sequence.matched_stop());
            self.push_choice(sequence, (ChatDelta::default(), None), end, frames);
        }
    }

    fn end(&mut self, sequences: &[Sequence], frames: &mut Frames) {
        let Some(last) = sequences.last() else { return };
        let nameless = || ChatChunk { usage: None, ..self.chunk(last, Vec::new()) };
        let (sglext, ids) = self.extras.at_end(sequences);
        if sglext.is_some() {
            frames.push(&ChatChunk { sglext, ..nameless() });
        }
        if ids.is_some() {
            frames.push_named("sglext_ids", &ChatChunk { sglext: ids, ..nameless() });
        }
        if self.usage.at_end {
            let usage = self.usage.total(sequences);
            frames.push(&ChatChunk { usage: Some(usage), ..self.chunk(last, Vec::new()) });
        }
    }

    fn error(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.push(&json!({"error": error.body()}));
    }
}
