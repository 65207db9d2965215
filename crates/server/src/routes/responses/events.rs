//! The events of a streamed response.

use protocol::responses::{
    CallOutput, Event, EventData, OutputItem, OutputPart, PartIndex, Status,
};

use super::{
    draft::{Draft, message_item, new_id, status_of},
    reasoning::ReasoningForm,
};
use crate::{
    answer::{AnswerStream, Part},
    error::ApiError,
    generation::{Sequence, Update},
    sse::{Frames, StreamFormat},
};

pub(super) struct Events {
    /// Gone once the response is finished.
    draft: Option<Draft>,
    stream: Option<AnswerStream>,
    /// Those that are whole.
    output: Vec<OutputItem>,
    open: Option<Open>,
    num_sent: u64,
}

/// The item that grows.
struct Open {
    kind: Kind,
    id: String,
    /// Text or arguments so far.
    text: String,
}

enum Kind {
    Reasoning(ReasoningForm),
    Message,
    Call { call_id: String, name: String },
}

impl Open {
    /// The item so far, or as a whole.
    fn item(&self, status: Status) -> OutputItem {
        let (id, text) = (self.id.clone(), self.text.clone());
        let mut item = match &self.kind {
            Kind::Reasoning(form) => form.item(id, text, status),
            Kind::Message => message_item(id, text, Vec::new(), status),
            Kind::Call { call_id, name } => OutputItem::FunctionCall(CallOutput {
                id,
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: text,
                status,
            }),
        };
        if let (Status::InProgress, OutputItem::Message(item)) = (status, &mut item) {
            item.content.clear();
        }
        item
    }

    /// What its content consists of; a call has none.
    fn part(&self) -> Option<OutputPart> {
        let text = self.text.clone();
        match self.kind {
            Kind::Reasoning(form) => Some(form.part(text)),
            Kind::Message => {
                Some(OutputPart::OutputText { text, annotations: [], logprobs: Vec::new() })
            }
            Kind::Call { .. } => None,
        }
    }

    /// Where that is.
    fn index(&self) -> PartIndex {
        match self.kind {
            Kind::Reasoning(form) => form.index(),
            Kind::Message | Kind::Call { .. } => PartIndex::Content { content_index: 0 },
        }
    }

    /// The names of the events that begin and end it.
    fn part_events(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Reasoning(form) => (form.events().part_added, form.events().part_done),
            Kind::Message | Kind::Call { .. } => {
                ("response.content_part.added", "response.content_part.done")
            }
        }
    }
}

impl Events {
    pub(super) fn new(draft: Draft) -> Self {
        Self { draft: Some(draft), stream: None, output: Vec::new(), open: None, num_sent: 0 }
    }

    fn push(&mut self, kind: &'static str, data: EventData<'_>, frames: &mut Frames) {
        let event = Event { kind, sequence_number: self.num_sent, data };
        self.num_sent += 1;
        frames.push_named(kind, &event);
    }

    fn add(&mut self, part: Part, frames: &mut Frames) {
        match part {
            Part::Reasoning(text) => {
                if !matches!(&self.open, Some(Open { kind: Kind::Reasoning(_), .. })) {
                    let form = self.draft.as_ref().map(|draft| draft.reasoning);
                    self.open(Kind::Reasoning(form.unwrap_or_default()), "rs", frames);
                }
                self.grow(&text, frames);
            }
            Part::Content(text) => {
                if !matches!(&self.open, Some(Open { kind: Kind::Message, .. })) {
                    self.open(Kind::Message, "msg", frames);
                }
                self.grow(&text, frames);
            }
            Part::Call { id, name, .. } => {
                self.open(Kind::Call { call_id: id, name }, "fc", frames)
            }
            Part::Arguments { json, .. } => self.grow(&json, frames),
        }
    }

    fn open(&mut self, kind: Kind, prefix: &str, frames: &mut Frames) {
        self.close(Status::Completed, frames);
        let open = Open { kind, id: new_id(prefix), text: String::new() };
        let (output_index, item) = (self.output.len(), open.item(Status::InProgress));
        let added = EventData::Item { output_index, item: &item };
        self.push("response.output_item.added", added, frames);
        if let Some(part) = open.part() {
            let (kind, _) = open.part_events();
            let data =
                EventData::Part { item_id: &open.id, output_index, index: open.index(), part };
            self.push(kind, data, frames);
        }
        self.open = Some(open);
    }

    fn grow(&mut self, delta: &str, frames: &mut Frames) {
        let Some(mut open) = self.open.take() else { return };
        open.text.push_str(delta);
        let (item_id, output_index) = (open.id.as_str(), self.output.len());
        let index = open.index();
        let text =
            |logprobs| EventData::TextDelta { item_id, output_index, index, delta, logprobs };
        let (kind, data) = match open.kind {
            Kind::Reasoning(form) => (form.events().delta, text(None)),
            Kind::Message => ("response.output_text.delta", text(Some([]))),
            Kind::Call { .. } => (
                "response.function_call_arguments.delta",
                EventData::ArgumentsDelta { item_id, output_index, delta },
            ),
        };
        self.push(kind, data, frames);
        self.open = Some(open);
    }

    fn close(&mut self, status: Status, frames: &mut Frames) {
        let Some(open) = self.open.take() else { return };
        let (item_id, output_index) = (open.id.as_str(), self.output.len());
        let (whole, index) = (open.text.as_str(), open.index());
        let text =
            |logprobs| EventData::TextDone { item_id, output_index, index, text: whole, logprobs };
        let (kind, data) = match &open.kind {
            Kind::Reasoning(form) => (form.events().done, text(None)),
            Kind::Message => ("response.output_text.done", text(Some([]))),
            Kind::Call { name, .. } => (
                "response.function_call_arguments.done",
                EventData::ArgumentsDone { item_id, output_index, name, arguments: whole },
            ),
        };
        self.push(kind, data, frames);
        if let Some(part) = open.part() {
            let (_, kind) = open.part_events();
            let data = EventData::Part { item_id, output_index, index, part };
            self.push(kind, data, frames);
        }
        let item = open.item(status);
        let done = EventData::Item { output_index, item: &item };
        self.push("response.output_item.done", done, frames);
        self.output.push(item);
    }

    fn finish(&mut self, sequence: &Sequence, frames: &mut Frames) {
        let Some(draft) = self.draft.take() else { return };
        let output = std::mem::take(&mut self.output);
        let response = draft.finish_with(sequence, output).response;
        let kind = match response.status {
            Status::Incomplete => "response.incomplete",
            // OpenAI has no event of its own for a response that was given up.
            Status::Failed | Status::Cancelled => "response.failed",
            Status::InProgress | Status::Completed => "response.completed",
        };
        self.push(kind, EventData::Response { response: &response }, frames);
    }
}

impl StreamFormat for Events {
    const LAST_FRAME: &'static [u8] = b"";

    fn begin(&mut self, frames: &mut Frames) {
        let Some(response) = self.draft.as_ref().map(|draft| draft.response.clone()) else {
            return;
        };
        for kind in ["response.created", "response.in_progress"] {
            self.push(kind, EventData::Response { response: &response }, frames);
        }
    }

    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames) {
        let is_done = sequence.finish_reason().is_some();
        if let Some(error) = sequence.finish_reason().and_then(ApiError::from_abort) {
            return self.error(&error, frames);
        }
        let Some(draft) = &self.draft else { return };
        let stream = self.stream.get_or_insert_with(|| AnswerStream::new(&draft.format));
        for part in stream.advance(sequence, update) {
            self.add(part, frames);
        }
        if is_done {
            if self.open.is_none() && self.output.is_empty() {
                self.open(Kind::Message, "msg", frames);
            }
            self.close(status_of(sequence), frames);
            self.finish(sequence, frames);
        }
    }

    fn end(&mut self, _: &[Sequence], _: &mut Frames) {}

    fn error(&mut self, error: &ApiError, frames: &mut Frames) {
        self.close(Status::Incomplete, frames);
        if let Some(draft) = self.draft.take() {
            let response = draft.fail(error).response;
            self.push("response.failed", EventData::Response { response: &response }, frames);
        }
    }
}
