//! What a constrained request is asked while its tokens come.
//!
//! The seam between whoever follows grammars (the crate `constrained`) and whoever asks
//! them, which need not know one another.
//!
//! Upstream: `BaseGrammarObject` in `sglang/srt/constrained/base_grammar_backend.py`.

use std::fmt;

use thiserror::Error;

use crate::TokenId;

/// Why a grammar cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrammarError {
    /// A token that the mask did not allow.
    #[error("the grammar does not allow token {0}")]
    Refused(TokenId),
    /// The vocabulary has no token that goes on from here.
    #[error("no token of the vocabulary continues the grammar")]
    DeadEnd,
    /// More was rolled back than was accepted.
    #[error("the grammar has not accepted that many tokens")]
    Rollback,
    /// The backend gave up: the grammar takes too much work here.
    #[error("the grammar cannot be followed: {0}")]
    Backend(String),
}

/// Tokens that may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextTokens {
    /// Every one.
    Any,
    /// Those whose bit is set: token `t` is bit `t % 32` of word `t / 32`. At least one; as
    /// many words as the model's vocabulary needs.
    Of(Vec<u32>),
}

impl NextTokens {
    /// One token, of a vocabulary of this size.
    pub fn only(token: TokenId, vocab_size: usize) -> Self {
        let mut mask = vec![0; vocab_size.div_ceil(32)];
        mask[token as usize / 32] = 1 << (token % 32);
        Self::Of(mask)
    }

    /// All of them but these, if that leaves any.
    #[must_use]
    pub fn without(self, tokens: &[TokenId], vocab_size: usize) -> Self {
        let words = vocab_size.div_ceil(32);
        let mut mask = match &self {
            Self::Any => (0..words).map(|word| low_bits(vocab_size - word * 32)).collect(),
            Self::Of(mask) => mask.clone(),
        };
        for &token in tokens {
            mask[token as usize / 32] &= !(1 << (token % 32));
        }
        if mask.iter().all(|&word| word == 0) { self } else { Self::Of(mask) }
    }

    /// Whether this token may come next.
    pub fn allows(&self, token: TokenId) -> bool {
        match self {
            Self::Any => true,
            Self::Of(mask) => mask[token as usize / 32] >> (token % 32) & 1 == 1,
        }
    }
}

/// A word with so many bits set, from the lowest on.
fn low_bits(count: usize) -> u32 {
    if count < 32 { (1 << count) - 1 } else { u32::MAX }
}

/// A grammar, and how far a completion has come in it.
pub trait TokenGrammar: Send + Sync + fmt::Debug {
    /// What may come next.
    ///
    /// # Errors
    /// The grammar cannot be followed; it never can again.
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError>;

    /// Takes the next token.
    ///
    /// # Errors
    /// A token that [`Self::next_tokens`] does not give.
    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError>;

    /// Takes back the last tokens.
    ///
    /// # Errors
    /// There were not so many.
    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError>;

    /// The completion has ended.
    fn is_terminated(&self) -> bool;

    /// The same grammar at the same place, independent from now on.
    fn boxed_clone(&self) -> Box<dyn TokenGrammar>;
}

impl Clone for Box<dyn TokenGrammar> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}
