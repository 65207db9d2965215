//! What parsers say, in the order of the text.

use std::{mem, sync::Arc};

use super::{ToolEvent, Tools};

/// Collects a parser's findings: content with the white space around calls
/// left out, calls, and the text of those that turn out malformed.
#[derive(Debug)]
pub(crate) struct Calls {
    tools: Arc<Tools>,
    forwards_unknown: bool,
    events: Vec<ToolEvent>,
    /// White space that is content only if more content follows.
    blank: String,
    /// No content has followed the last call.
    is_after_call: bool,
    /// Text of the call so far; `None` between calls.
    markup: Option<String>,
    /// What is being read now belongs to a call that is done.
    is_settled: bool,
    call: Call,
}

#[derive(Debug, Clone, Default, PartialEq)]
enum Call {
    #[default]
    None,
    /// With the white space in front of it.
    Announced(String),
    /// Of a function that is not there.
    Unknown(String),
}

impl Calls {
    pub(super) fn new(tools: Arc<Tools>, forwards_unknown: bool) -> Self {
        Self {
            tools,
            forwards_unknown,
            events: Vec::new(),
            blank: String::new(),
            is_after_call: false,
            markup: None,
            is_settled: false,
            call: Call::None,
        }
    }

    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Content.
    pub(crate) fn text(&mut self, text: &str) {
        let content = text.trim_end();
        if !content.is_empty() {
            let blank = mem::take(&mut self.blank);
            self.is_after_call = false;
            self.push_text(&blank);
            self.push_text(content);
        }
        self.blank.push_str(&text[content.len()..]);
    }

    fn push_text(&mut self, text: &str) {
        match self.events.last_mut() {
            Some(ToolEvent::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.events.push(ToolEvent::Text(text.to_owned())),
        }
    }

    /// Markup of a call begins with what the current step reads.
    pub(crate) fn open(&mut self) {
        self.markup = Some(String::new());
    }

    /// Markup ends; nothing of it is content.
    pub(crate) fn close(&mut self) {
        self.markup = None;
        self.is_settled = true;
    }

    /// A call of `name` begins.
    pub(crate) fn call(&mut self, name: &str) {
        if !self.forwards_unknown && !self.tools.contains(name) {
            self.call = Call::Unknown(name.to_owned());
            return;
        }
        self.call = Call::Announced(mem::take(&mut self.blank));
        self.events.push(ToolEvent::Name(name.to_owned()));
    }

    /// More of the arguments' JSON text.
    pub(crate) fn arguments(&mut self, piece: &str) {
        if piece.is_empty() || !matches!(self.call, Call::Announced(_)) {
            return;
        }
        match self.events.last_mut() {
            Some(ToolEvent::Arguments(last)) => last.push_str(piece),
            _ => self.events.push(ToolEvent::Arguments(piece.to_owned())),
        }
    }

    /// The call is complete.
    pub(crate) fn end_call(&mut self) {
        match mem::take(&mut self.call) {
            Call::Announced(_) => self.events.push(ToolEvent::End),
            Call::Unknown(name) => {
                self.blank.clear();
                self.events.push(ToolEvent::Unknown(name));
            }
            Call::None => return,
        }
        self.is_after_call = true;
        self.is_settled = true;
    }

    /// A call of which everything is known.
    pub(crate) fn whole_call(&mut self, name: &str, arguments: &str) {
        self.call(name);
        self.arguments(arguments);
        self.end_call();
    }

    /// The markup is malformed; `read` is what the current step reads of it.
    pub(crate) fn give_up(&mut self, read: &str) {
        let mut markup = self.markup.take().unwrap_or_default();
        markup.push_str(read);
        self.is_settled = true;
        match mem::take(&mut self.call) {
            Call::Announced(blank) => {
                self.events.push(ToolEvent::Broken(blank + &markup));
                self.is_after_call = false;
            }
            Call::Unknown(_) | Call::None => self.text(&markup),
        }
    }

    /// Called after each step with what it has read.
    pub(super) fn has_read(&mut self, text: &str) {
        let is_settled = mem::take(&mut self.is_settled);
        match &mut self.markup {
            Some(markup) if is_settled => markup.clear(),
            Some(markup) => markup.push_str(text),
            None => {}
        }
    }

    /// The text has ended, with `rest` not read.
    pub(super) fn finish(&mut self, rest: &str) {
        match &self.markup {
            Some(markup) if markup.trim().is_empty() && rest.trim().is_empty() => {}
            Some(_) => self.give_up(rest),
            None => self.text(rest),
        }
        let blank = mem::take(&mut self.blank);
        if !self.is_after_call {
            self.push_text(&blank);
        }
    }

    pub(super) fn take(&mut self) -> Vec<ToolEvent> {
        mem::take(&mut self.events)
    }
}
