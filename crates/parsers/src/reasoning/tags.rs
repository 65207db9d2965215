//! Reasoning between two tags.

use super::{ReasoningParser, Separated};
use crate::text::{Rest, Until};

/// The tags of a format.
#[derive(Debug)]
pub(super) struct Tags {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    /// A tool call ends reasoning that was not closed.
    pub(super) tool: Option<&'static str>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tagged {
    tags: &'static Tags,
    place: Place,
    /// The opening tag may still come; it is never part of the text.
    may_open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Before,
    Inside,
    After,
}

impl Tagged {
    /// `continued` is the text before this one.
    pub(super) fn new(tags: &'static Tags, is_forced: bool, continued: &str) -> Self {
        let place = match (continued.contains(tags.open), continued.contains(tags.close)) {
            (_, true) => Place::Before,
            (true, false) => Place::Inside,
            (false, false) if is_forced => Place::Inside,
            (false, false) => Place::Before,
        };
        Self { tags, place, may_open: true }
    }

    fn before(&mut self, rest: &mut Rest<'_>, out: &mut Separated) -> Option<usize> {
        match rest.until(&[self.tags.open]) {
            Until::Safe(0) => None,
            Until::Marker { at: 0, marker } => {
                self.place = Place::Inside;
                self.may_open = false;
                Some(marker.len())
            }
            Until::Marker { at: len, .. } | Until::Safe(len) => {
                out.content.push_str(&rest.text[..len]);
                Some(len)
            }
        }
    }

    fn inside(&mut self, rest: &mut Rest<'_>, out: &mut Separated) -> Option<usize> {
        let Tags { open, close, tool } = *self.tags;
        let mut markers = vec![close];
        markers.extend(tool);
        markers.extend(self.may_open.then_some(open));
        match rest.until(&markers) {
            Until::Safe(0) => None,
            Until::Marker { at: 0, marker } if marker == open => {
                self.may_open = false;
                Some(marker.len())
            }
            Until::Marker { at: 0, marker } => {
                self.place = Place::After;
                // The call is for the tool-call parser.
                Some(if marker == close { marker.len() } else { 0 })
            }
            Until::Marker { at: len, .. } | Until::Safe(len) => {
                out.reasoning.push_str(&rest.text[..len]);
                Some(len)
            }
        }
    }
}

impl ReasoningParser for Tagged {
    fn step(&mut self, rest: &mut Rest<'_>, out: &mut Separated) -> Option<usize> {
        if rest.text.is_empty() {
            return None;
        }
        match self.place {
            Place::Before => self.before(rest, out),
            Place::Inside => self.inside(rest, out),
            Place::After => {
                out.content.push_str(rest.text);
                Some(rest.text.len())
            }
        }
    }

    fn is_reasoning(&self) -> bool {
        self.place == Place::Inside
    }
}
