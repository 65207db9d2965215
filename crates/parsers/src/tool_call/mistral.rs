//! Mistral: a list of objects, or names and arguments in a row.
//!
//! `[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]` in older templates,
//! `[TOOL_CALLS]name[ARGS]{...}` in newer ones, once for each call.
//!
//! Upstream: `sglang/srt/function_call/mistral_detector.py`.

use super::{
    Calls, ToolCallParser,
    object::{Arguments, CallObject, Fed},
    read_text,
};
use crate::text::{Rest, Until};

const MARKER: &str = "[TOOL_CALLS]";
const ARGUMENTS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Mistral {
    place: Place,
    object: CallObject,
    arguments: Arguments,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Place {
    #[default]
    Text,
    Opened,
    Object,
    CommaOrEnd,
    Name,
    Arguments,
}

impl Mistral {
    fn give_up(&mut self, read: &str, calls: &mut Calls) -> Option<usize> {
        calls.give_up(read);
        *self = Self::default();
        Some(read.len())
    }

    fn close(&mut self, len: usize, calls: &mut Calls) -> Option<usize> {
        calls.close();
        *self = Self::default();
        Some(len)
    }

    fn begin_object(&mut self) -> Option<usize> {
        self.object = CallObject::default();
        self.place = Place::Object;
        Some(1)
    }

    /// A name is one word; what is not ends the hope for one.
    fn name(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let until = rest.until(&[ARGUMENTS, MARKER]);
        let (head, is_whole) = match until {
            Until::Marker { at, marker } => (&rest.text[..at], marker == ARGUMENTS),
            Until::Safe(len) => (&rest.text[..len], false),
        };
        let name = head.split(CALL_ID).next().unwrap_or_default().trim();
        let is_name = !name.contains(char::is_whitespace);
        match until {
            Until::Marker { at, marker } if is_whole && is_name && !name.is_empty() => {
                calls.call(name);
                self.arguments = Arguments::default();
                self.place = Place::Arguments;
                Some(at + marker.len())
            }
            Until::Safe(_) if is_name && !rest.is_end => None,
            _ => self.give_up("", calls),
        }
    }
}

impl ToolCallParser for Mistral {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        if matches!(self.place, Place::Opened | Place::CommaOrEnd) && rest.blank() > 0 {
            return Some(rest.blank());
        }
        match self.place {
            Place::Text => Some(read_text(rest, &[MARKER], calls)?.unwrap_or_else(|marker| {
                calls.open();
                self.place = Place::Opened;
                marker.len()
            })),
            Place::Opened if rest.text.starts_with('[') => self.begin_object(),
            Place::Opened => {
                self.place = Place::Name;
                Some(0)
            }
            Place::Object => match self.object.feed(rest.text, calls) {
                Fed::More => Some(rest.text.len()),
                Fed::Broken(len) => self.give_up(&rest.text[..len], calls),
                Fed::Done(len) => {
                    self.place = Place::CommaOrEnd;
                    Some(len)
                }
            },
            Place::CommaOrEnd if rest.text.starts_with(',') => self.begin_object(),
            Place::CommaOrEnd => self.close(usize::from(rest.text.starts_with(']')), calls),
            Place::Name => self.name(rest, calls),
            Place::Arguments => match self.arguments.feed(rest.text, calls) {
                Fed::More => Some(rest.text.len()),
                Fed::Broken(len) => self.give_up(&rest.text[..len], calls),
                Fed::Done(len) => {
                    calls.end_call();
                    self.close(len, calls)
                }
            },
        }
    }
}
