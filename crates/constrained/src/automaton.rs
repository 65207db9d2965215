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
use crate::{Vocabulary, ending::Ending};

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
        Ok(Box::new(AutomatonGrammar { automaton, states, ending: Ending::default() }))
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
    ending: Ending,
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
        let (automaton, vocabulary) = (&self.automaton.dfa, &self.automaton.tokens.vocabulary);
        if vocabulary.is_end(token) {
            return self.ending.accept(token, automaton.may_end(self.state()));
        }
        let bytes = vocabulary.bytes(token);
        match automaton.after(self.state(), bytes) {
            Some(state) if !bytes.is_empty() && !self.ending.is_reached() => {
                self.states.push(state);
                Ok(())
            }
            _ => Err(GrammarError::Refused(token)),
        }
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let left = self.states.len().checked_sub(self.ending.tokens_before(num_tokens));
        let left = left.filter(|&left| left > 0).ok_or(GrammarError::Rollback)?;
        self.states.truncate(left);
        self.ending.rollback(num_tokens);
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        self.ending.is_reached()
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(self.clone())
    }
}
