//! Why there is no grammar.

use thiserror::Error;

use crate::GrammarKind;

/// A grammar that is refused; the request's fault. The texts are what clients see.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompileError {
    /// The library's words.
    #[error("Failed to compile {kind} grammar: {reason}")]
    Invalid {
        /// What it was to be.
        kind: GrammarKind,
        /// What is wrong with it.
        reason: String,
    },
    /// A text that nobody should have to read.
    #[error("Failed to compile {kind} grammar: {len} bytes, {max} at most")]
    TooLong {
        /// What it was to be.
        kind: GrammarKind,
        /// Bytes of the text.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The library failed on it.
    #[error("Failed to compile {kind} grammar: the grammar backend gave up")]
    Panicked {
        /// What it was to be.
        kind: GrammarKind,
    },
}

/// Why no grammar can be followed with a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VocabularyError {
    /// `--skip-tokenizer-init`.
    #[error("there is no tokenizer")]
    NoTokenizer,
    /// The completion could not end.
    #[error("no token ends a completion")]
    NoEnd,
    /// What tokens stand for depends on their neighbours.
    #[error("the tokenizer puts text between tokens")]
    Joined,
    /// The library's words.
    #[error("{0}")]
    Backend(String),
}
