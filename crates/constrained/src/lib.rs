//! Constrained decoding: which tokens may come next, so that a completion follows a JSON
//! schema, a regular expression, a grammar or structural tags.
//!
//! A [`GrammarCompiler`] turns what a request asks for into a
//! [`TokenGrammar`](types::TokenGrammar), which gives a mask over the vocabulary for each
//! token. Libraries do the parsing, one [`GrammarBackend`] each; here are their limits,
//! their cache, and what no library knows: which tokens end a completion, and where
//! reasoning ends, and when it has to. No tensor, no clock, no thread but the one a grammar is compiled on.
//!
//! Upstream: `sglang/srt/constrained`.

mod anchors;
mod automaton;
mod backend;
mod compiler;
mod ebnf;
mod ending;
mod error;
mod llguidance_backend;
mod outlines_backend;
mod reasoning;
mod registry;
mod schema_levels;
mod spec;
mod structural_tag;
mod thinking_budget;
mod vocabulary;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use backend::{GrammarBackend, JsonOptions};
pub use compiler::GrammarCompiler;
pub use error::{CompileError, VocabularyError};
pub use reasoning::AfterReasoning;
pub use registry::{
    DEFAULT_BACKEND, GRAMMAR_BACKENDS, GrammarBackendEntry, NewBackend, UnknownGrammarBackend, find,
};
pub use spec::{GrammarKind, GrammarSpec};
pub use thinking_budget::{ReasoningMarks, ThinkingBudget};
pub use vocabulary::Vocabulary;
