//! Regular expressions as automata that are whole when they are compiled: nothing about them
//! grows or fails while tokens come, and the masks of their states are kept.

mod dfa;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use toktrie::TokEnv;
use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

pub(crate) use self::dfa::Limits;
use self::dfa::{Automaton, State};
use crate::Vocabulary;

/// Bytes of masks kept for all automata of a vocabulary.
const MAX_MASK_BYTES: usize = 256 << 20;

/// Makes automata over one vocabulary.
#[derive(Debug)]
pub(crate) struct Automata {
    tokens: Arc<Tokens>,
}

/// What all automata share.
struct Tokens {
    vocabulary: Arc<Vocabulary>,
    env: TokEnv,
    num_mask_bytes: AtomicUsize,
}

impl Automata {
    /// `env` has the vocabulary's trie.
    pub(crate) fn new(vocabulary: &Arc<Vocabulary>, env: TokEnv) -> Self {
        let vocabulary = Arc::clone(vocabulary);
        Self { tokens: Arc::new(Tokens { vocabulary, env, num_mask_bytes: AtomicUsize::new(0) }) }
    }

    /// For completions that `regex` matches from the beginning to the end.
    ///
    /// # Errors
    /// What is wrong with the expression, or that the automaton would be too large.
    pub(crate) fn compile(
        &self,
        regex: &str,
        limits: Limits,
    ) -> Result<Box<dyn TokenGrammar>, String> {
        let dfa = Automaton::new(regex, limits)?;
        let states = vec![dfa.start()];
        let automaton = Arc::new(Kept { dfa, tokens: Arc::clone(&self.tokens) });
        Ok(Box::new(AutomatonGrammar { automaton, states, is_terminated: false }))
    }
}

impl Tokens {
    fn has_room_for(&self, num_bytes: usize) -> bool {
        self.num_mask_bytes.load(Ordering::Relaxed) + num_bytes <= MAX_MASK_BYTES
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("num_mask_bytes", &self.num_mask_bytes)
            .finish_non_exhaustive()
    }
}

/// An automaton with its masks, which count as long as it lives.
#[derive(Debug)]
struct Kept {
    dfa: Automaton,
    tokens: Arc<Tokens>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tokens.num_mask_bytes.fetch_sub(self.dfa.num_mask_bytes(), Ordering::Relaxed);
    }
}

/// One automaton, followed.
#[derive(Debug, Clone)]
struct AutomatonGrammar {
    automaton: Arc<Kept>,
    /// At the beginning and after each token; never empty.
    states: Vec<State>,
    /// A token that ends the completion was accepted.
    is_terminated: bool,
}

impl AutomatonGrammar {
    fn state(&self) -> State {
        *self.states.last().expect("the beginning is never taken back")
    }
}

impl TokenGrammar for AutomatonGrammar {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        let mask = self.automaton.dfa.mask(self.state(), &self.automaton.tokens);
        match mask.iter().all(|&word| word == 0) {
            true => Err(GrammarError::DeadEnd),
            false => Ok(NextTokens::Of(mask.to_vec())),
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        let refused = Err(GrammarError::Refused(token));
        if self.is_terminated {
            return refused;
        }
        if self.automaton.tokens.vocabulary.is_end(token) {
            self.is_terminated = self.automaton.dfa.may_end(self.state());
            return if self.is_terminated { Ok(()) } else { refused };
        }
        let bytes = self.automaton.tokens.vocabulary.bytes(token);
        match self.automaton.dfa.after(self.state(), bytes) {
            Some(state) if !bytes.is_empty() => {
                self.states.push(state);
                Ok(())
            }
            _ => refused,
        }
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let num_ends = usize::from(self.is_terminated && num_tokens > 0);
        let left = self.states.len().checked_sub(num_tokens - num_ends);
        let left = left.filter(|&left| left > 0).ok_or(GrammarError::Rollback)?;
        self.states.truncate(left);
        self.is_terminated &= num_ends == 0;
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(self.clone())
    }
}
