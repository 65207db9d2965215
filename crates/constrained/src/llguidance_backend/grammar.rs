//! A grammar that the library follows.

use std::{fmt, sync::Arc};

use llguidance::Matcher;
use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

use super::lexers::{Lease, Lexers};
use crate::Vocabulary;

/// One grammar, followed. Its lexer is shared with others that follow the grammar, until it
/// gives up: then it is followed with a lexer of its own from the beginning on.
pub(super) struct LlGrammar {
    matcher: Matcher,
    lexers: Arc<Lexers>,
    /// `None`: the lexer is its own.
    lease: Option<Lease>,
    vocabulary: Arc<Vocabulary>,
    /// Those that the matcher has taken.
    tokens: Vec<TokenId>,
    /// A token that ends the completion was accepted, of which the matcher knows nothing.
    is_terminated: bool,
}

impl LlGrammar {
    /// `matcher` has taken no token.
    pub(super) fn new(matcher: Matcher, vocabulary: &Arc<Vocabulary>) -> Self {
        Self::at_the_beginning(Arc::new(Lexers::new(matcher)), Arc::clone(vocabulary))
    }

    fn at_the_beginning(lexers: Arc<Lexers>, vocabulary: Arc<Vocabulary>) -> Self {
        let (matcher, lease) = Lexers::lease(&lexers);
        let lease = Some(lease);
        Self { matcher, lexers, lease, vocabulary, tokens: Vec::new(), is_terminated: false }
    }

    /// What `ask` gets from the matcher. A lexer that many have used may be full where a new
    /// one is not.
    fn asked<T>(
        &mut self,
        ask: impl Fn(&mut Matcher) -> Result<T, GrammarError>,
    ) -> Result<T, GrammarError> {
        let answer = ask(&mut self.matcher);
        let Err(error) = &answer else { return answer };
        let Some(lease) = self.lease.take() else { return answer };
        lease.retire();
        let mut matcher = self.lexers.cold();
        match matcher.try_consume_tokens(&self.tokens) {
            Ok(count) if count == self.tokens.len() => self.matcher = matcher,
            _ => return Err(error.clone()),
        }
        ask(&mut self.matcher)
    }

    fn may_end(&mut self) -> Result<bool, GrammarError> {
        self.asked(|matcher| Ok(matcher.is_stopped() || matcher.is_accepting().map_err(failed)?))
    }
}

fn failed(error: impl fmt::Display) -> GrammarError {
    GrammarError::Backend(first_line(&error.to_string()))
}

/// Without the library's own stack.
pub(super) fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().to_owned()
}

impl TokenGrammar for LlGrammar {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        let allowed = self.asked(|matcher| matcher.compute_mask_or_eos().map_err(failed))?;
        if let (Some(lease), Ok(stats)) = (&mut self.lease, self.matcher.last_step_stats()) {
            lease.spend(stats.lexer_cost);
        }
        let mut mask = Vec::from(allowed);
        mask.resize(self.vocabulary.mask_words(), 0);
        if mask.iter().all(|&word| word == 0) {
            return Err(GrammarError::DeadEnd);
        }
        Ok(NextTokens::Of(mask))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if self.is_terminated {
            return Err(GrammarError::Refused(token));
        }
        if self.vocabulary.is_end(token) {
            self.is_terminated = self.may_end()?;
            return if self.is_terminated { Ok(()) } else { Err(GrammarError::Refused(token)) };
        }
        match self.asked(|matcher| matcher.try_consume_tokens(&[token]).map_err(failed))? {
            1 => {
                self.tokens.push(token);
                Ok(())
            }
            _ => Err(GrammarError::Refused(token)),
        }
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let num_ends = usize::from(self.is_terminated && num_tokens > 0);
        let num_tokens = num_tokens - num_ends;
        let left = self.tokens.len().checked_sub(num_tokens).ok_or(GrammarError::Rollback)?;
        self.asked(|matcher| matcher.rollback(num_tokens).map_err(failed))?;
        self.tokens.truncate(left);
        self.is_terminated &= num_ends == 0;
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        let (lexers, vocabulary) = (Arc::clone(&self.lexers), Arc::clone(&self.vocabulary));
        if self.tokens.is_empty() && !self.is_terminated {
            return Box::new(Self::at_the_beginning(lexers, vocabulary));
        }
        // A lexer of its own stays that of one request.
        let matcher = match &self.lease {
            Some(_) => self.matcher.clone(),
            None => self.matcher.deep_clone(),
        };
        let (lease, tokens) = (self.lease.clone(), self.tokens.clone());
        Box::new(Self {
            matcher,
            lexers,
            lease,
            vocabulary,
            tokens,
            is_terminated: self.is_terminated,
        })
    }
}

impl fmt::Debug for LlGrammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_terminated, .. } = self;
        f.debug_struct("LlGrammar").field("is_terminated", is_terminated).finish_non_exhaustive()
    }
}
