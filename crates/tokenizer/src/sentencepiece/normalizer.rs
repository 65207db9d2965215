//! What SentencePiece does to text before it cuts it into pieces.

use super::{Parsed, chars_map::CharsMap, model, prefix_table::PrefixTable};

/// SentencePiece's spelling of a space.
pub(super) const SPACE: &str = "▁";

#[derive(Debug)]
pub(super) struct Normalizer {
    chars_map: Option<CharsMap>,
    /// User-defined pieces stay as they are.
    user_defined: PrefixTable,
    adds_dummy_prefix: bool,
    removes_extra_whitespaces: bool,
    space: &'static str,
}

impl Normalizer {
    pub(super) fn new(spec: &model::Normalizer, user_defined: PrefixTable) -> Parsed<Self> {
        let chars_map = match spec.chars_map.as_slice() {
            [] => None,
            map => Some(CharsMap::parse(map)?),
        };
        Ok(Self {
            chars_map,
            user_defined,
            adds_dummy_prefix: spec.adds_dummy_prefix,
            removes_extra_whitespaces: spec.removes_extra_whitespaces,
            space: if spec.escapes_whitespaces { SPACE } else { " " },
        })
    }

    /// `text` as the pieces spell it. `may_add_prefix`: it gets a space in front
    /// if the model adds one.
    pub(super) fn normalize(&self, text: &str, may_add_prefix: bool) -> String {
        let mut rest = text;
        if self.removes_extra_whitespaces {
            while let (len, " ") = self.first(rest) {
                rest = &rest[len..];
            }
        }
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        if rest.is_empty() {
            return out;
        }
        if may_add_prefix && self.adds_dummy_prefix {
            out.push_str(self.space);
        }
        let mut after_space = self.removes_extra_whitespaces;
        while !rest.is_empty() {
            let (len, replacement) = self.first(rest);
            rest = &rest[len..];
            let kept = match after_space {
                true => replacement.trim_start_matches(' '),
                false => replacement,
            };
            if !kept.is_empty() {
                kept.split_inclusive(' ').for_each(|part| match part.strip_suffix(' ') {
                    Some(part) => out.extend([part, self.space]),
                    None => out.push_str(part),
                });
                after_space = self.removes_extra_whitespaces && kept.ends_with(' ');
            }
        }
        if self.removes_extra_whitespaces {
            out.truncate(out.trim_end_matches(self.space).len());
        }
        out
    }

    /// Length and replacement of what `text` begins with; 0 if it is empty.
    fn first<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        if let Some(len) = self.user_defined_prefix(text) {
            return (len, &text[..len]);
        }
        let mapped = self.chars_map.as_ref().and_then(|map| map.longest_prefix(text.as_bytes()));
        // A damaged map may end within a character.
        if let Some((len, replacement)) = mapped.filter(|&(len, _)| text.is_char_boundary(len)) {
            return (len, replacement);
        }
        let len = text.chars().next().map_or(0, char::len_utf8);
        (len, &text[..len])
    }

    /// Length of the longest user-defined piece that `text` begins with.
    pub(super) fn user_defined_prefix(&self, text: &str) -> Option<usize> {
        self.user_defined.prefixes(text.as_bytes()).last().map(|(len, _)| len)
    }

    /// How many bytes of text one byte of a piece can stand for; `None` if
    /// there is no limit.
    pub(super) fn shrinks(&self) -> Option<usize> {
        let keeps_all = self.chars_map.is_none() && !self.removes_extra_whitespaces;
        // A text may spell out the three bytes that stand for a space.
        keeps_all.then_some(SPACE.len())
    }
}
