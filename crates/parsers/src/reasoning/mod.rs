//! Reasoning cut out of generated text.
//!
//! Upstream: `sglang/srt/parser/reasoning_parser.py`. Where its two paths
//! differ, this does what its streams do: a tool call ends reasoning at once.

mod append_think;
mod gpt_oss;
mod registry;
mod tags;

use std::{fmt, mem};

pub use registry::{Force, REASONING_PARSERS, ReasoningEntry, Toggle, find};

use crate::text::Rest;

/// Text in its two roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Separated {
    /// What the model thought.
    pub reasoning: String,
    /// What it answered.
    pub content: String,
}

/// Whether the text is reasoning from its first character on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Begins {
    /// As the parser has it.
    #[default]
    ByHabit,
    /// The request asks for reasoning or does not; the parser may know better.
    IfAsked(bool),
    /// The prompt shows it.
    Known(bool),
}

/// What is known before the text begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReasoningOptions<'a> {
    /// Whether it is reasoning from the start.
    pub begins: Begins,
    /// Reasoning is reported as it arrives, not all at its end.
    pub streams: bool,
    /// The message that the text continues, if it continues one.
    pub continued: &'a str,
}

/// How one format marks reasoning.
pub(crate) trait ReasoningParser: Send + fmt::Debug {
    /// Reads from the beginning of the text that has arrived and says how many
    /// bytes it has read; `None` if it needs more to go on.
    fn step(&mut self, rest: &mut Rest<'_>, out: &mut Separated) -> Option<usize>;

    /// What comes next is reasoning, as far as one can know.
    fn is_reasoning(&self) -> bool;

    /// The same of the first text there is, even if reasoning is not cut out.
    fn begins_inside(&self) -> bool {
        self.is_reasoning()
    }
}

/// One answer being separated.
#[derive(Debug)]
pub struct ReasoningStream {
    parser: Box<dyn ReasoningParser>,
    buffer: String,
    searched: usize,
    streams: bool,
    /// Reasoning that waits for its end.
    held: String,
}

impl ReasoningStream {
    /// For one answer.
    pub fn new(entry: &ReasoningEntry, options: ReasoningOptions<'_>) -> Self {
        Self {
            parser: (entry.new)(entry.force.resolve(options.begins), options.continued),
            buffer: String::new(),
            searched: 0,
            streams: options.streams,
            held: String::new(),
        }
    }

    /// Whether the model is reasoning when the text begins, as far as one can know. To be
    /// asked first.
    pub fn begins_inside(&self) -> bool {
        self.parser.begins_inside()
    }

    /// The next piece of the text.
    pub fn push(&mut self, text: &str) -> Separated {
        self.buffer.push_str(text);
        self.read(false)
    }

    /// The end of the text.
    pub fn finish(&mut self) -> Separated {
        let mut out = self.read(true);
        match self.parser.is_reasoning() {
            true => out.reasoning.push_str(&self.buffer),
            false => out.content.push_str(&self.buffer),
        }
        self.buffer.clear();
        out.reasoning.insert_str(0, &mem::take(&mut self.held));
        out
    }

    fn read(&mut self, is_end: bool) -> Separated {
        let mut out = Separated::default();
        let mut at = 0;
        loop {
            let mut rest = Rest::new(&self.buffer[at..], is_end, &mut self.searched);
            let Some(num_bytes) = self.parser.step(&mut rest, &mut out) else { break };
            self.searched = 0;
            at += num_bytes;
            if at == self.buffer.len() {
                break;
            }
        }
        self.buffer.drain(..at);
        if !self.streams {
            self.held.push_str(&out.reasoning);
            out.reasoning.clear();
            if !self.parser.is_reasoning() {
                out.reasoning = mem::take(&mut self.held);
            }
        }
        out
    }
}

impl Separated {
    /// Separates a whole text.
    pub fn of_text(entry: &ReasoningEntry, begins: Begins, text: &str) -> Self {
        let options = ReasoningOptions { begins, streams: true, continued: "" };
        let mut stream = ReasoningStream::new(entry, options);
        let mut all = stream.push(text);
        let rest = stream.finish();
        all.reasoning.push_str(&rest.reasoning);
        all.content.push_str(&rest.content);
        all
    }
}

#[cfg(test)]
mod tests;
