//! Reading text that arrives in pieces.

mod balance;
mod json;
mod python;

pub(crate) use balance::Balance;
pub(crate) use json::{JsonStep, JsonValue};
pub(crate) use python::{Call, parse_calls, parse_literal};

/// The part of the text that has arrived and is not read yet.
#[derive(Debug)]
pub(crate) struct Rest<'a> {
    pub(crate) text: &'a str,
    /// Nothing comes after it.
    pub(crate) is_end: bool,
    /// How far earlier searches got without finding anything: a long argument
    /// is searched once and not once a piece.
    searched: &'a mut usize,
}

/// Where the next marker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The first marker begins here.
    Marker { at: usize, marker: &'static str },
    /// None is there; this many bytes are not the beginning of one either.
    Safe(usize),
}

impl<'a> Rest<'a> {
    /// `searched` belongs to the reader: zero whenever it has moved on.
    pub(crate) fn new(text: &'a str, is_end: bool, searched: &'a mut usize) -> Self {
        Self { text, is_end, searched }
    }

    /// Looks for the marker that begins first; of two at one place, the longer.
    pub(crate) fn until(&mut self, markers: &[&'static str]) -> Until {
        if let Some((at, marker)) = first_marker(self.text, *self.searched, markers) {
            return Until::Marker { at, marker };
        }
        let safe = match self.is_end {
            true => self.text.len(),
            false => self.text.len() - partial_marker(self.text, markers),
        };
        *self.searched = safe;
        Until::Safe(safe)
    }

    /// Where `marker` begins, if it has arrived.
    pub(crate) fn find(&mut self, marker: &'static str) -> Option<usize> {
        match self.until(&[marker]) {
            Until::Marker { at, .. } => Some(at),
            Until::Safe(_) => None,
        }
    }

    /// Whether it begins with `marker`; `None` while that is open.
    pub(crate) fn starts_with(&self, marker: &str) -> Option<bool> {
        match self.text.starts_with(marker) {
            true => Some(true),
            false if !self.is_end && marker.starts_with(self.text) => None,
            false => Some(false),
        }
    }

    /// Bytes of white space that it begins with.
    pub(crate) fn blank(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }
}

/// The marker that begins first from `from` on; of two at one place, the longer. Looks no
/// further than that: a marker that never comes must not cost a walk to the end each time.
fn first_marker(
    text: &str,
    from: usize,
    markers: &[&'static str],
) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    let may_begin = |at: usize| markers.iter().any(|m| m.as_bytes().first() == Some(&bytes[at]));
    (from..bytes.len()).filter(|&at| may_begin(at)).find_map(|at| {
        let here = markers.iter().filter(|marker| bytes[at..].starts_with(marker.as_bytes()));
        here.max_by_key(|marker| marker.len()).map(|&marker| (at, marker))
    })
}

/// Length of the longest ending of `text` that a marker begins with.
fn partial_marker(text: &str, markers: &[&'static str]) -> usize {
    let longest = markers.iter().map(|marker| marker.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest.saturating_sub(1));
    let starts = (from..text.len()).filter(|&at| text.is_char_boundary(at));
    let mut endings = starts.map(|at| &text[at..]);
    let partial = |ending: &&str| markers.iter().any(|marker| marker.starts_with(*ending));
    endings.find(partial).map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_that_may_become_a_marker_are_held_back() {
        let markers = ["<tool_call>", "[◁"];
        for (text, safe) in [
            ("", 0),
            ("abc", 3),
            ("a<", 1),
            ("a<tool_call", 1),
            ("a<<tool", 2),
            ("a<tool_kit", 10),
            ("a[", 1),
        ] {
            let mut searched = 0;
            assert_eq!(Rest::new(text, false, &mut searched).until(&markers), Until::Safe(safe));
            assert_eq!(searched, safe);
            let mut searched = 0;
            let whole = Until::Safe(text.len());
            assert_eq!(Rest::new(text, true, &mut searched).until(&markers), whole);
        }
    }

    #[test]
    fn the_first_and_longest_marker_wins() {
        let mut searched = 0;
        let mut rest = Rest::new("é]<a>b<a", false, &mut searched);
        assert_eq!(rest.until(&["<a", "<a>", "b"]), Until::Marker { at: 3, marker: "<a>" });
        assert_eq!(rest.find("<a"), Some(3));
        assert_eq!(rest.find("<b"), None);
    }
}
