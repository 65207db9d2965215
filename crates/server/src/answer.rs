//! An answer's text taken apart: reasoning, content, calls.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_chat.py`.

use std::sync::Arc;

use parsers::{
    reasoning::{Begins, ReasoningEntry, ReasoningOptions, ReasoningStream, Separated},
    tool_call::{ParsedCalls, ToolCallEntry, ToolCallStream, ToolEvent, Tools},
};
use types::FinishReason;
use uuid::Uuid;

use crate::generation::{Sequence, Update};

/// How the answers to one request are taken apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerFormat {
    pub(crate) reasoning: Option<ReasoningFormat>,
    pub(crate) calls: Option<CallFormat>,
}

#[derive(Debug, Clone)]
pub(crate) struct ReasoningFormat {
    pub(crate) entry: &'static ReasoningEntry,
    pub(crate) begins: Begins,
    /// Reasoning is sent as it comes.
    pub(crate) streams: bool,
    /// The message that the answer continues.
    pub(crate) continued: String,
}

#[derive(Debug, Clone)]
pub(crate) struct CallFormat {
    pub(crate) entry: &'static ToolCallEntry,
    pub(crate) tools: Arc<Tools>,
    /// An answer may have several calls.
    pub(crate) is_parallel: bool,
    /// Calls in the conversation so far.
    pub(crate) num_earlier: usize,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Reasoning(String),
    Content(String),
    /// A call begins.
    Call {
        index: usize,
        id: String,
        name: String,
    },
    Arguments {
        index: usize,
        json: String,
    },
}

/// A complete answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) reasoning: String,
    pub(crate) content: String,
    pub(crate) calls: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

impl AnswerFormat {
    /// Takes a whole text apart.
    pub(crate) fn parse(&self, text: &str) -> Answer {
        let Separated { reasoning, content } = match &self.reasoning {
            Some(format) => {
                let mut stream = format.stream();
                let (mut all, rest) = (stream.push(text), stream.finish());
                all.reasoning.push_str(&rest.reasoning);
                all.content.push_str(&rest.content);
                all
            }
            None => Separated { reasoning: String::new(), content: text.to_owned() },
        };
        let Some(format) = &self.calls else {
            return Answer { reasoning, content, calls: Vec::new() };
        };
        let parsed = ParsedCalls::of_text(format.entry, Arc::clone(&format.tools), &content);
        let calls = parsed.calls.into_iter().take(format.max_calls()).enumerate();
        let calls = calls.map(|(index, call)| Call {
            id: format.id(&call.name, index),
            name: call.name,
            arguments: call.arguments,
        });
        Answer { reasoning, content: parsed.text, calls: calls.collect() }
    }
}

impl ReasoningFormat {
    /// Whether the model is reasoning when its answer begins.
    pub(crate) fn begins_inside(&self) -> bool {
        self.stream().begins_inside()
    }

    fn stream(&self) -> ReasoningStream {
        let options = ReasoningOptions {
            begins: self.begins,
            streams: self.streams,
            continued: &self.continued,
        };
        ReasoningStream::new(self.entry, options)
    }
}

impl CallFormat {
    fn max_calls(&self) -> usize {
        if self.is_parallel { usize::MAX } else { 1 }
    }

    /// Kimi's template wants its own numbering back; for all others any name
    /// will do that no other call has.
    fn id(&self, name: &str, index: usize) -> String {
        match self.entry.name {
            "kimi_k2" => format!("functions.{name}:{}", self.num_earlier + index),
            _ => format!("call_{}", &Uuid::new_v4().simple().to_string()[..24]),
        }
    }
}

/// One answer that arrives in pieces.
#[derive(Debug)]
pub(crate) struct AnswerStream {
    reasoning: Option<ReasoningStream>,
    calls: Option<(CallFormat, ToolCallStream)>,
    num_begun: usize,
    num_ended: usize,
}

impl AnswerStream {
    pub(crate) fn new(format: &AnswerFormat) -> Self {
        let stream = |format: &CallFormat| {
            let stream = ToolCallStream::new(format.entry, Arc::clone(&format.tools));
            (format.clone(), stream)
        };
        Self {
            reasoning: format.reasoning.as_ref().map(ReasoningFormat::stream),
            calls: format.calls.as_ref().map(stream),
            num_begun: 0,
            num_ended: 0,
        }
    }

    /// What is new in a sequence's answer.
    pub(crate) fn advance(&mut self, sequence: &Sequence, update: &Update) -> Vec<Part> {
        let mut parts = self.push(&sequence.text()[update.text_from..]);
        match sequence.finish_reason() {
            // What is left of an aborted answer is nobody's.
            None | Some(FinishReason::Abort { .. }) => {}
            Some(_) => parts.extend(self.finish()),
        }
        parts
    }

    /// The next piece of the text.
    fn push(&mut self, text: &str) -> Vec<Part> {
        let separated = match &mut self.reasoning {
            Some(stream) => stream.push(text),
            None => Separated { reasoning: String::new(), content: text.to_owned() },
        };
        let mut parts = Vec::new();
        self.add(separated, &mut parts);
        parts
    }

    /// The end of the text.
    fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        if let Some(separated) = self.reasoning.as_mut().map(ReasoningStream::finish) {
            self.add(separated, &mut parts);
        }
        let events = self.calls.as_mut().map(|(_, stream)| stream.finish());
        self.add_events(events.unwrap_or_default(), &mut parts);
        parts
    }

    /// The answer has a complete call.
    pub(crate) fn has_calls(&self) -> bool {
        self.num_ended > 0
    }

    fn add(&mut self, separated: Separated, parts: &mut Vec<Part>) {
        if !separated.reasoning.is_empty() {
            parts.push(Part::Reasoning(separated.reasoning));
        }
        match &mut self.calls {
            Some((_, stream)) => {
                let events = stream.push(&separated.content);
                self.add_events(events, parts);
            }
            None if separated.content.is_empty() => {}
            None => parts.push(Part::Content(separated.content)),
        }
    }

    fn add_events(&mut self, events: Vec<ToolEvent>, parts: &mut Vec<Part>) {
        let Some((format, _)) = &self.calls else { return };
        let max_calls = format.max_calls();
        for event in events {
            let index = self.num_begun.saturating_sub(1);
            let is_shown = self.num_begun <= max_calls;
            match event {
                ToolEvent::Text(text) => parts.push(Part::Content(text)),
                ToolEvent::Name(name) => {
                    let index = self.num_begun;
                    self.num_begun += 1;
                    if index < max_calls {
                        parts.push(Part::Call { index, id: format.id(&name, index), name });
                    }
                }
                ToolEvent::Arguments(json) if is_shown => {
                    parts.push(Part::Arguments { index, json });
                }
                ToolEvent::End => self.num_ended += 1,
                ToolEvent::Arguments(_) => {}
                ToolEvent::Broken(_) => {
                    tracing::warn!("a call that was announced in a stream turned out malformed");
                }
                ToolEvent::Unknown(name) => {
                    tracing::warn!("the model called {name:?}, which is not among the tools");
                }
            }
        }
    }
}
