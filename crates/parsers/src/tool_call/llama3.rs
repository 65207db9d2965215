//! Llama 3: JSON objects after a marker, or an answer that is nothing else.
//!
//! `<|python_tag|>{"name": ..., "parameters": {...}}; {...}`. Without the
//! marker an answer that begins with `{` is a call if it says so; upstream
//! drops such an answer when it is none.
//!
//! Upstream: `sglang/srt/function_call/llama32_detector.py`.

use super::{
    Calls, ToolCallParser,
    object::{CallObject, Fed},
    read_text,
};
use crate::text::Rest;

const MARKER: &str = "<|python_tag|>";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Llama3 {
    place: Place,
    object: CallObject,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    /// Nothing but white space so far.
    #[default]
    Start,
    Text,
    Open,
    Object,
    /// Another object may follow.
    Next,
}

impl Llama3 {
    fn open(&mut self, calls: &mut Calls) {
        calls.open();
        self.object = CallObject::default();
        self.place = Place::Object;
    }
}

impl ToolCallParser for Llama3 {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let blank = rest.blank();
        match self.place {
            Place::Start if blank > 0 => {
                calls.text(&rest.text[..blank]);
                return Some(blank);
            }
            Place::Open | Place::Next if blank > 0 => return Some(blank),
            Place::Start if rest.text.starts_with('{') => self.open(calls),
            Place::Start => self.place = Place::Text,
            Place::Text => {
                return Some(read_text(rest, &[MARKER], calls)?.unwrap_or_else(|marker| {
                    calls.open();
                    self.place = Place::Open;
                    marker.len()
                }));
            }
            Place::Open => {
                self.object = CallObject::default();
                self.place = Place::Object;
            }
            Place::Object => match self.object.feed(rest.text, calls) {
                Fed::More => return Some(rest.text.len()),
                Fed::Done(len) => {
                    self.place = Place::Next;
                    return Some(len);
                }
                Fed::Broken(len) => {
                    calls.give_up(&rest.text[..len]);
                    self.place = Place::Text;
                    return Some(len);
                }
            },
            Place::Next if rest.text.starts_with(';') => return Some(1),
            Place::Next if rest.text.starts_with('{') => self.open(calls),
            Place::Next => {
                calls.close();
                self.place = Place::Text;
            }
        }
        Some(0)
    }
}
