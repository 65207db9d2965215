//! What a library of grammars has to give.

use std::fmt;

use types::TokenGrammar;

use crate::{CompileError, GrammarSpec};

/// How JSON is spaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// `--constrained-json-whitespace-pattern`: a regular expression for what may stand
    /// between two parts of a JSON text; `None` for any white space.
    pub whitespace_pattern: Option<String>,
    /// `--constrained-json-disable-any-whitespace`: one space after `,` and `:`, and none
    /// elsewhere.
    pub disable_any_whitespace: bool,
}

/// A library of grammars over one vocabulary.
pub trait GrammarBackend: Send + Sync + fmt::Debug {
    /// Reads a grammar. May take long and much stack; what it may not do is run on for
    /// ever, so each library is given its limits.
    ///
    /// # Errors
    /// A grammar that is malformed, too large, or uses what the library does not have.
    fn compile(&self, spec: &GrammarSpec) -> Result<Box<dyn TokenGrammar>, CompileError>;
}
