//! Byte-pair encoding where a pair's turn comes from the piece it makes.
//!
//! SentencePiece gives pieces scores and tiktoken gives them ranks; neither has
//! a list of merges. Both merge the pair that makes the best piece first, and of
//! equals the leftmost.

use std::{cmp::Ordering, collections::BinaryHeap};

use rustc_hash::FxHashMap;
use types::TokenId;

/// A piece of the vocabulary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) id: TokenId,
    /// The higher, the earlier it is put together.
    pub(crate) score: f32,
}

/// Pieces by their bytes.
pub(crate) type Pieces = FxHashMap<Box<[u8]>, Piece>;

/// A part of the text that is to become a token.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    /// `start` again once it is part of the symbol to its left.
    end: usize,
    prev: Option<usize>,
    next: Option<usize>,
    /// Stays as it is.
    frozen: bool,
}

/// The symbols of a text in a row.
#[derive(Debug, Default)]
pub(crate) struct Symbols(Vec<Symbol>);

impl Symbols {
    /// Appends the next `len` bytes of the text.
    pub(crate) fn push(&mut self, len: usize, frozen: bool) {
        let at = self.0.len();
        let prev = at.checked_sub(1);
        let start = prev.map_or(0, |prev| self.0[prev].end);
        if let Some(prev) = prev {
            self.0[prev].next = Some(at);
        }
        self.0.push(Symbol { start, end: start + len, prev, next: None, frozen });
    }

    /// Merges symbols of `text` until no two neighbours make a piece, and gives
    /// the byte ranges that are left.
    pub(crate) fn merge(mut self, text: &[u8], pieces: &Pieces) -> Vec<std::ops::Range<usize>> {
        let mut candidates = BinaryHeap::new();
        for right in 1..self.0.len() {
            candidates.extend(self.candidate(text, pieces, Some(right - 1), Some(right)));
        }
        while let Some(Candidate { left, right, end, .. }) = candidates.pop() {
            let (first, second) = (self.0[left], self.0[right]);
            // One of the two has since been merged with another.
            if first.end != second.start || second.end != end || second.start == second.end {
                continue;
            }
            self.0[left].end = end;
            self.0[left].next = second.next;
            self.0[right].end = second.start;
            if let Some(next) = second.next {
                self.0[next].prev = Some(left);
            }
            candidates.extend(self.candidate(text, pieces, first.prev, Some(left)));
            candidates.extend(self.candidate(text, pieces, Some(left), second.next));
        }
        let left = self.0.iter().filter(|symbol| symbol.start < symbol.end);
        left.map(|symbol| symbol.start..symbol.end).collect()
    }

    fn candidate(
        &self,
        text: &[u8],
        pieces: &Pieces,
        left: Option<usize>,
        right: Option<usize>,
    ) -> Option<Candidate> {
        let (left, right) = (left?, right?);
        let (first, second) = (self.0[left], self.0[right]);
        if first.frozen || second.frozen {
            return None;
        }
        let piece = pieces.get(&text[first.start..second.end])?;
        Some(Candidate { score: piece.score, left, right, end: second.end })
    }
}

/// Two neighbours that make a piece, which ends at byte `end`.
#[derive(Debug)]
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    end: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, scores: &[(&str, f32)]) -> Vec<String> {
        let pieces = scores
            .iter()
            .zip(0..)
            .map(|(&(piece, score), id)| (piece.as_bytes().into(), Piece { id, score }));
        let mut symbols = Symbols::default();
        text.chars().for_each(|c| symbols.push(c.len_utf8(), c == '#'));
        let ranges = symbols.merge(text.as_bytes(), &pieces.collect());
        ranges.into_iter().map(|range| text[range].to_owned()).collect()
    }

    #[test]
    fn the_best_piece_comes_first_and_of_equals_the_leftmost() {
        assert_eq!(merged("abc", &[("ab", 1.0), ("bc", 2.0)]), ["a", "bc"]);
        assert_eq!(merged("aaaaa", &[("aa", 1.0), ("aaa", 0.0)]), ["aa", "aaa"]);
        assert_eq!(merged("abab", &[("ab", 1.0), ("abab", 5.0)]), ["abab"]);
        // What is frozen merges with nothing.
        assert_eq!(merged("a#a", &[("a#", 1.0), ("#a", 1.0)]), ["a", "#", "a"]);
        assert!(merged("", &[]).is_empty());
    }
}
