//! The keys that a text begins with.

use std::ops::Range;

use types::TokenId;

/// Byte strings with a token each, sorted.
#[derive(Debug)]
pub(super) struct PrefixTable {
    keys: Vec<(Box<[u8]>, TokenId)>,
    /// The keys that begin with byte `b` are `first[b]..first[b + 1]`.
    first: Vec<usize>,
}

impl PrefixTable {
    /// Of `keys`, which are not empty and differ.
    pub(super) fn new<'a>(keys: impl Iterator<Item = (&'a str, TokenId)>) -> Self {
        let mut keys: Vec<(Box<[u8]>, TokenId)> =
            keys.map(|(key, id)| (key.as_bytes().into(), id)).collect();
        keys.sort_unstable();
        let begin = |byte: usize| keys.partition_point(|(key, _)| usize::from(key[0]) < byte);
        let first = (0..=256).map(begin).collect();
        Self { keys, first }
    }

    /// Length and token of every key that `text` begins with, the shortest first.
    pub(super) fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, TokenId)> {
        let mut len = 0;
        let mut range = 0..self.keys.len();
        std::iter::from_fn(move || {
            while !range.is_empty() {
                let &byte = text.get(len)?;
                range = self.narrowed(range.clone(), len, byte);
                len += 1;
                let (key, id) = self.keys.get(range.start).filter(|_| !range.is_empty())?;
                // Of the keys that begin alike the shortest comes first.
                if key.len() == len {
                    range.start += 1;
                    return Some((len, *id));
                }
            }
            None
        })
    }

    /// The keys of `range`, all of more than `at` bytes, with `byte` at `at`.
    fn narrowed(&self, range: Range<usize>, at: usize, byte: u8) -> Range<usize> {
        if at == 0 {
            let byte = usize::from(byte);
            return self.first[byte]..self.first[byte + 1];
        }
        let keys = &self.keys[range.clone()];
        let begin = keys.partition_point(|(key, _)| key[at] < byte);
        let len = keys[begin..].partition_point(|(key, _)| key[at] == byte);
        range.start + begin..range.start + begin + len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_that_a_text_begins_with() {
        let keys = ["a", "abc", "abd", "b", "ab", "é", "\u{10FFFF}", "xyz"];
        let table = PrefixTable::new(keys.into_iter().zip(0..));
        let prefixes = |text: &str| table.prefixes(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(prefixes("abdc"), [(1, 0), (2, 4), (3, 2)]);
        assert_eq!(prefixes("b"), [(1, 3)]);
        assert_eq!(prefixes("éa"), [(2, 5)]);
        assert_eq!(prefixes("\u{10FFFF}"), [(4, 6)]);
        assert!(prefixes("xy").is_empty() && prefixes("").is_empty() && prefixes("c").is_empty());
        let empty = PrefixTable::new([].into_iter());
        assert_eq!(empty.prefixes(b"a").count(), 0);
    }
}
