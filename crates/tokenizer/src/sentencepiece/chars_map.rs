//! SentencePiece's precompiled character map: what sequences of characters are
//! replaced by, NFKC and more as a rule.
//!
//! The map is a double-array trie (Aoe, 1989) in the layout of Darts-clone, whose
//! values are places in a text of zero-terminated replacements. Looking up takes
//! a step per byte of text whatever the array says, and a step that leads out
//! of it finds nothing.

use super::{Parsed, SentencePieceError};

#[derive(Debug)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    /// Of `precompiled_charsmap`: the length of the trie in bytes, the trie, the
    /// replacements.
    pub(super) fn parse(bytes: &[u8]) -> Parsed<Self> {
        let broken = |reason| SentencePieceError::CharsMap { reason };
        let (len, rest) = bytes.split_first_chunk().ok_or(broken("it is cut off"))?;
        let len = u32::from_le_bytes(*len) as usize;
        let (trie, replacements) =
            rest.split_at_checked(len).ok_or(broken("the trie is longer than the map"))?;
        let (units, []) = trie.as_chunks::<4>() else {
            return Err(broken("the trie ends within a unit"));
        };
        if units.is_empty() {
            return Err(broken("the trie is empty"));
        }
        let replacements = std::str::from_utf8(replacements);
        let replacements = replacements.map_err(|_| broken("the replacements are not UTF-8"))?;
        if !replacements.ends_with('\0') {
            return Err(broken("the last replacement is cut off"));
        }
        let units = units.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
        Ok(Self { units, replacements: replacements.to_owned() })
    }

    /// The longest sequence in the map that `text` begins with: its length in
    /// bytes and what replaces it.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<(usize, &str)> {
        let mut longest = None;
        let mut at = offset(*self.units.first()?);
        for (&byte, len) in text.iter().zip(1..) {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at).filter(|&&unit| label(unit) == u32::from(byte))
            else {
                break;
            };
            at ^= offset(unit);
            if has_leaf(unit) {
                longest = self.units.get(at).map(|&leaf| (len, value(leaf))).or(longest);
            }
        }
        let (len, start) = longest?;
        let (replacement, _) = self.replacements.get(start..)?.split_once('\0')?;
        Some((len, replacement))
    }
}

fn has_leaf(unit: u32) -> bool {
    (unit >> 8) & 1 == 1
}

fn value(unit: u32) -> usize {
    (unit & 0x7FFF_FFFF) as usize
}

/// Larger than any byte for a leaf.
fn label(unit: u32) -> u32 {
    unit & 0x8000_00FF
}

/// Where the children are, to be combined with where the unit is.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 0x200) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trie of "a" alone, by hand: the root's children are at 0x100.
    fn map(replacement_at: u32) -> Vec<u8> {
        let mut units = vec![0_u32; 0x200];
        units[0] = 0x100 << 10;
        units[0x161] = 0x61 | 1 << 8 | 0x10 << 10;
        units[0x171] = replacement_at | 1 << 31;
        let trie: Vec<u8> = units.into_iter().flat_map(u32::to_le_bytes).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, "\0é!\0".as_bytes()].concat()
    }

    #[test]
    fn sequences_are_found_and_damage_finds_nothing() {
        let found = |at| {
            let map = CharsMap::parse(&map(at)).unwrap();
            map.longest_prefix(b"ab").map(|(len, text)| (len, text.to_owned()))
        };
        assert_eq!(found(1), Some((1, "é!".to_owned())));
        assert_eq!(found(0), Some((1, String::new())));
        // Within a character, and after the end.
        assert_eq!((found(2), found(1000)), (None, None));
        let map = CharsMap::parse(&map(1)).unwrap();
        assert_eq!((map.longest_prefix(b"b"), map.longest_prefix(b"")), (None, None));
    }

    #[test]
    fn a_trie_that_leads_back_to_itself_ends_with_the_text() {
        let mut bytes = map(1);
        // The children of "a" are where "a" itself is.
        bytes[4 + 4 * 0x161..][..4].copy_from_slice(&(0x61_u32 | 0x61 << 10).to_le_bytes());
        let map = CharsMap::parse(&bytes).unwrap();
        assert_eq!(map.longest_prefix(&[b'a'; 10_000]), None);
    }

    #[test]
    fn broken_maps_are_refused() {
        let error = |bytes: &[u8]| CharsMap::parse(bytes).unwrap_err().to_string();
        let whole = map(1);
        assert!(error(&whole[..3]).contains("cut off"));
        assert!(error(&whole[..100]).contains("longer than the map"));
        assert!(error(&[0, 0, 0, 0, 0]).contains("empty"));
        assert!(error(&[3, 0, 0, 0, 1, 2, 3, 0]).contains("within a unit"));
        assert!(error(&whole[..whole.len() - 1]).contains("last replacement"));
        let mut bytes = whole;
        let end = bytes.len();
        bytes[end - 3] = 0xFF;
        assert!(error(&bytes).contains("not UTF-8"));
    }
}
