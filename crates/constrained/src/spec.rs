//! What a request asks for.

use std::{fmt, sync::Arc};

/// The language that a grammar is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrammarKind {
    /// A JSON schema; the text `$$ANY$$` stands for any JSON.
    JsonSchema,
    /// A regular expression for the whole completion.
    Regex,
    /// A grammar in the EBNF of XGrammar (GBNF), from the rule `root` on.
    Ebnf,
    /// Tags with grammars of their own in free text, as JSON.
    StructuralTag,
}

impl fmt::Display for GrammarKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonSchema => "json_schema",
            Self::Regex => "regex",
            Self::Ebnf => "ebnf",
            Self::StructuralTag => "structural_tag",
        })
    }
}

/// A grammar as text: what grammars are cached by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrammarSpec {
    /// Its language.
    pub kind: GrammarKind,
    /// The grammar.
    pub text: Arc<str>,
}

impl GrammarSpec {
    /// The text of [`GrammarKind::JsonSchema`] for any JSON value.
    pub const ANY_JSON: &'static str = "$$ANY$$";

    /// Wraps a request's text.
    pub fn new(kind: GrammarKind, text: impl Into<Arc<str>>) -> Self {
        Self { kind, text: text.into() }
    }
}
