//! A grammar whose state is all that it has accepted, so a token that is lost, twice there
//! or out of order changes what may come.

use types::{GrammarError, NextTokens, TokenGrammar, TokenId, splitmix64};

use super::oracle::VOCAB_SIZE;

/// Ends the completion.
pub(super) const END: TokenId = 11;

#[derive(Debug, Clone)]
pub(super) struct FakeGrammar {
    /// Tokens before the grammar begins, as with reasoning.
    num_free: usize,
    /// [`END`] ends it.
    ends: bool,
    accepted: Vec<TokenId>,
}

impl FakeGrammar {
    pub(super) fn new(num_free: usize, ends: bool) -> Self {
        Self { num_free, ends, accepted: Vec::new() }
    }

    fn allows(&self, token: TokenId) -> bool {
        let state = self
            .accepted
            .iter()
            .fold(0, |state, &token| splitmix64(state ^ (u64::from(token) + 1)));
        let always = (state % VOCAB_SIZE) as TokenId;
        self.accepted.len() < self.num_free
            || token == always
            || splitmix64(state ^ u64::from(token)).is_multiple_of(3)
    }
}

impl TokenGrammar for FakeGrammar {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        assert!(!self.is_terminated(), "asked after its end");
        if self.accepted.len() < self.num_free {
            return Ok(NextTokens::Any);
        }
        let allowed = (0..VOCAB_SIZE as TokenId).filter(|&token| self.allows(token));
        let mask = allowed.fold(0, |mask, token| mask | 1 << token);
        Ok(NextTokens::Of(vec![mask]))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if !self.allows(token) {
            return Err(GrammarError::Refused(token));
        }
        self.accepted.push(token);
        Ok(())
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let left = self.accepted.len().checked_sub(num_tokens).ok_or(GrammarError::Rollback)?;
        self.accepted.truncate(left);
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        let is_over = self.accepted.len() > self.num_free && self.accepted.last() == Some(&END);
        self.ends && is_over
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(self.clone())
    }
}
