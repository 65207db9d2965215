//! Regular expressions and JSON schemas as automata.
//!
//! A schema becomes a regular expression, and that an automaton over bytes which is whole
//! when the grammar is compiled: nothing about it grows or fails while tokens come. What is
//! not regular is refused by name: EBNF and structural tags (as upstream's backend of this
//! name does), and schemas that count or compare. Recursion is followed a few levels deep.
//!
//! Upstream: `sglang/srt/constrained/outlines_backend.py`.

mod json_schema;
mod json_text;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use toktrie::ApproximateTokEnv;
use types::TokenGrammar;

use crate::{
    CompileError, GrammarBackend, GrammarKind, GrammarSpec, JsonOptions, Vocabulary,
    automaton::{Automata, Limits},
};

/// A schema or an expression beyond these is refused.
const LIMITS: Limits =
    Limits { nfa_bytes: 2 << 20, determinize_bytes: 12 << 20, dfa_bytes: 8 << 20 };

/// Automata over one vocabulary.
#[derive(Debug)]
pub(crate) struct Outlines {
    automata: Automata,
    json: JsonOptions,
}

impl Outlines {
    pub(crate) fn new(vocabulary: &Arc<Vocabulary>, json: JsonOptions) -> Self {
        let env = Arc::new(ApproximateTokEnv::new(vocabulary.trie()));
        Self { automata: Automata::new(vocabulary, env), json }
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
        let grammar = regex.and_then(|regex| self.automata.compile(&regex, LIMITS));
        grammar.map_err(|reason| CompileError::Invalid { kind, reason })
    }
}
