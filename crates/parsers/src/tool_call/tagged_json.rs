//! JSON objects between tags: Qwen 2.5 and 3, Hermes.
//!
//! `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, with white
//! space anywhere; a list of objects in a tag, and a last tag that is not
//! closed, are taken too.
//!
//! Upstream: `sglang/srt/function_call/{qwen25,hermes}_detector.py`. Qwen's
//! insists on a line break after the tag and has none of the leniency.

use super::{
    Calls, ToolCallParser,
    object::{CallObject, Fed},
    read_text,
};
use crate::text::Rest;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TaggedJson {
    place: Place,
    object: CallObject,
    is_list: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Text,
    Opened,
    Object,
    CommaOrEnd,
    Close,
}

impl TaggedJson {
    fn give_up(&mut self, read: &str, calls: &mut Calls) -> Option<usize> {
        calls.give_up(read);
        *self = Self::default();
        Some(read.len())
    }

    fn begin_object(&mut self) {
        self.object = CallObject::default();
        self.place = Place::Object;
    }

    fn open(&mut self, rest: &Rest<'_>, calls: &mut Calls) -> Option<usize> {
        self.is_list = rest.text.starts_with('[');
        if !self.is_list && !rest.text.starts_with('{') {
            return self.give_up("", calls);
        }
        self.begin_object();
        Some(usize::from(self.is_list))
    }

    fn object(&mut self, rest: &Rest<'_>, calls: &mut Calls) -> Option<usize> {
        match self.object.feed(rest.text, calls) {
            Fed::More => Some(rest.text.len()),
            Fed::Broken(len) => self.give_up(&rest.text[..len], calls),
            Fed::Done(len) => {
                self.place = if self.is_list { Place::CommaOrEnd } else { Place::Close };
                Some(len)
            }
        }
    }
}

impl ToolCallParser for TaggedJson {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        if !matches!(self.place, Place::Text | Place::Object) && rest.blank() > 0 {
            return Some(rest.blank());
        }
        match self.place {
            Place::Text => Some(read_text(rest, &[OPEN], calls)?.unwrap_or_else(|marker| {
                calls.open();
                self.place = Place::Opened;
                marker.len()
            })),
            Place::Opened => self.open(rest, calls),
            Place::Object => self.object(rest, calls),
            Place::CommaOrEnd if rest.text.starts_with(',') => {
                self.begin_object();
                Some(1)
            }
            Place::CommaOrEnd if rest.text.starts_with(']') => {
                self.place = Place::Close;
                Some(1)
            }
            Place::CommaOrEnd => self.give_up("", calls),
            Place::Close => {
                let is_closed = rest.starts_with(CLOSE)?;
                calls.close();
                self.place = Place::Text;
                Some(if is_closed { CLOSE.len() } else { 0 })
            }
        }
    }
}
