//! Regular expressions and JSON schemas as automata.
//!
//! A schema becomes a regular expression, and that an automaton over bytes which is whole
//! when the grammar is compiled: nothing about it grows or fails while tokens come. What is
//! not regular is refused by name: EBNF and structural tags (as upstream's backend of this
//! name does), and schemas that count or compare. Recursion is followed a few levels deep.
//!
//! Upstream: `sglang/srt/constrained/outlines_backend.py`.

mod automaton;
mod json_schema;
mod json_text;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use toktrie::TokTrie;
use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

use self::automaton::{Automaton, State};
use crate::{CompileError, GrammarBackend, GrammarKind, GrammarSpec, JsonOptions, Vocabulary};

/// Automata over one vocabulary.
pub(crate) struct Outlines {
    tokens: Arc<Tokens>,
    json: JsonOptions,
}

/// What all automata share.
#[derive(Debug)]
struct Tokens {
    vocabulary: Arc<Vocabulary>,
    trie: TrieOf,
}

struct TrieOf(TokTrie);

impl Outlines {
    pub(crate) fn new(vocabulary: &Arc<Vocabulary>, json: JsonOptions) -> Self {
        let trie = TrieOf(vocabulary.trie());
        let tokens = Arc::new(Tokens { vocabulary: Arc::clone(vocabulary), trie });
        Self { tokens, json }
    }
}

impl GrammarBackend for Outlines {
    fn compile(&self, spec: &GrammarSpec) -> Result<Box<dyn TokenGrammar>, CompileError> {
        let kind = spec.kind;
        let regex = match kind {
            GrammarKind::JsonSchema => json_schema::to_regex(&spec.text, &self.json),
            GrammarKind::Regex => Ok(spec.text.to_string()),
            GrammarKind::Ebnf | GrammarKind::StructuralTag => {
                Err(format!("the grammar backend outlines does not support {kind}"))
            }
        };
        let automaton = regex.and_then(|regex| Automaton::new(&regex));
        let automaton =
            Arc::new(automaton.map_err(|reason| CompileError::Invalid { kind, reason })?);
        let states = vec![automaton.start()];
        let tokens = Arc::clone(&self.tokens);
        Ok(Box::new(OutlinesGrammar { automaton, tokens, states, is_terminated: false }))
    }
}

impl fmt::Debug for Outlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlines").field("json", &self.json).finish_non_exhaustive()
    }
}

impl fmt::Debug for TrieOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokTrie").finish_non_exhaustive()
    }
}

/// One automaton, followed.
#[derive(Debug, Clone)]
struct OutlinesGrammar {
    automaton: Arc<Automaton>,
    tokens: Arc<Tokens>,
    /// At the beginning and after each token; never empty.
    states: Vec<State>,
    /// A token that ends the completion was accepted.
    is_terminated: bool,
}

impl OutlinesGrammar {
    fn state(&self) -> State {
        *self.states.last().expect("the beginning is never taken back")
    }
}

impl TokenGrammar for OutlinesGrammar {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        let Tokens { vocabulary, trie } = &*self.tokens;
        let mask = self.automaton.mask(self.state(), vocabulary, &trie.0);
        match mask.iter().all(|&word| word == 0) {
            true => Err(GrammarError::DeadEnd),
            false => Ok(NextTokens::Of(mask)),
        }
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        let refused = Err(GrammarError::Refused(token));
        if self.is_terminated {
            return refused;
        }
        if self.tokens.vocabulary.is_end(token) {
            self.is_terminated = self.automaton.may_end(self.state());
            return if self.is_terminated { Ok(()) } else { refused };
        }
        let bytes = self.tokens.vocabulary.bytes(token);
        match self.automaton.after(self.state(), bytes) {
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
