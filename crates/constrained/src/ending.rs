//! The token that ends a completion, of which what follows the grammar knows nothing.

use types::{GrammarError, TokenId};

/// Whether that token was accepted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ending {
    is_reached: bool,
}

impl Ending {
    pub(crate) fn is_reached(self) -> bool {
        self.is_reached
    }

    /// Takes a token that ends a completion.
    ///
    /// # Errors
    /// The grammar may not end here, or has ended.
    pub(crate) fn accept(&mut self, token: TokenId, may_end: bool) -> Result<(), GrammarError> {
        if self.is_reached || !may_end {
            return Err(GrammarError::Refused(token));
        }
        self.is_reached = true;
        Ok(())
    }

    /// Of the last `num_tokens` those before this one.
    pub(crate) fn tokens_before(self, num_tokens: usize) -> usize {
        num_tokens - usize::from(self.is_reached && num_tokens > 0)
    }

    /// The last `num_tokens` are taken back.
    pub(crate) fn rollback(&mut self, num_tokens: usize) {
        self.is_reached &= num_tokens == 0;
    }
}
