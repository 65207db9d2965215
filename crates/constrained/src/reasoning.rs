//! A grammar that begins when reasoning has ended.
//!
//! Upstream: `sglang/srt/constrained/reasoner_grammar_backend.py`.

use std::sync::Arc;

use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

/// Lets any token pass up to a mark, and then follows a grammar.
#[derive(Debug, Clone)]
pub struct AfterReasoning {
    /// Tokens of the mark.
    end: Arc<[TokenId]>,
    /// Those accepted up to the mark's end, the mark included.
    reasoning: Vec<TokenId>,
    has_ended: bool,
    grammar: Box<dyn TokenGrammar>,
    /// Tokens that the grammar has accepted.
    num_followed: usize,
}

impl AfterReasoning {
    /// A completion that begins inside of reasoning, which `end` ends.
    pub fn new(end: Arc<[TokenId]>, grammar: Box<dyn TokenGrammar>) -> Self {
        Self { end, reasoning: Vec::new(), has_ended: false, grammar, num_followed: 0 }
    }
}

impl TokenGrammar for AfterReasoning {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        match self.has_ended {
            true => self.grammar.next_tokens(),
            false => Ok(NextTokens::Any),
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if self.has_ended {
            self.grammar.accept(token)?;
            self.num_followed += 1;
        } else {
            self.reasoning.push(token);
            self.has_ended = self.reasoning.ends_with(&self.end);
        }
        Ok(())
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let num_followed = num_tokens.min(self.num_followed);
        let num_reasoning = num_tokens - num_followed;
        let left = self.reasoning.len().checked_sub(num_reasoning).ok_or(GrammarError::Rollback)?;
        self.grammar.rollback(num_followed)?;
        self.num_followed -= num_followed;
        self.reasoning.truncate(left);
        self.has_ended &= num_reasoning == 0;
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        self.has_ended && self.grammar.is_terminated()
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(self.clone())
    }
}
