//! Special tokens by their names in texts.

use std::ops::Range;

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use types::TokenId;

use crate::vocabulary::{Token, Vocabulary};

/// Finds where special tokens are spelt out.
#[derive(Debug)]
pub(crate) struct SpecialTokens {
    names: AhoCorasick,
    /// By the index of the name.
    ids: Vec<TokenId>,
}

impl SpecialTokens {
    /// # Errors
    /// More names than the search can hold.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self, BuildError> {
        let tokens = vocabulary.tokens().iter().zip(0..);
        let (names, ids): (Vec<&str>, Vec<TokenId>) = tokens
            .filter_map(|(token, id)| match token {
                Token::Special(name) if !name.is_empty() => Some((name.as_str(), id)),
                _ => None,
            })
            .unzip();
        let names = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names)?;
        Ok(Self { names, ids })
    }

    /// Those in `text` from left to right, of several that begin at one place the longest.
    pub(super) fn find_all(&self, text: &str) -> impl Iterator<Item = (Range<usize>, TokenId)> {
        self.names
            .find_iter(text)
            .map(|found| (found.range(), self.ids[found.pattern().as_usize()]))
    }

    pub(super) fn is_in(&self, text: &str) -> bool {
        self.names.is_match(text)
    }
}
