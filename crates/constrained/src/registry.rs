//! The grammar backends by upstream's names.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    GrammarBackend, JsonOptions, Vocabulary, VocabularyError, llguidance_backend::LlGuidance,
    outlines_backend::Outlines,
};

/// One backend.
#[derive(Debug, Clone, Copy)]
pub struct GrammarBackendEntry {
    /// As in `--grammar-backend`.
    pub name: &'static str,
    /// Builds it for a vocabulary; `None`: constrained requests are refused.
    pub new: Option<NewBackend>,
}

/// Builds a backend.
pub type NewBackend =
    fn(&Arc<Vocabulary>, JsonOptions) -> Result<Box<dyn GrammarBackend>, VocabularyError>;

impl PartialEq for GrammarBackendEntry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Unless `--grammar-backend` names another.
pub const DEFAULT_BACKEND: &str = "llguidance";

/// All backends, by name.
pub static GRAMMAR_BACKENDS: &[GrammarBackendEntry] = &[
    GrammarBackendEntry {
        name: "llguidance",
        new: Some(|vocabulary, json| Ok(Box::new(LlGuidance::new(vocabulary, json)?))),
    },
    GrammarBackendEntry { name: "none", new: None },
    GrammarBackendEntry {
        name: "outlines",
        new: Some(|vocabulary, json| Ok(Box::new(Outlines::new(vocabulary, json)))),
    },
];

/// A name that no backend has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown grammar backend `{name}`; known: {}", known().join(", "))]
pub struct UnknownGrammarBackend {
    name: String,
}

fn known() -> Vec<&'static str> {
    GRAMMAR_BACKENDS.iter().map(|entry| entry.name).collect()
}

/// The backend of this name.
///
/// # Errors
/// There is none; the error lists those there are.
pub fn find(name: &str) -> Result<&'static GrammarBackendEntry, UnknownGrammarBackend> {
    let entry = GRAMMAR_BACKENDS.iter().find(|entry| entry.name == name);
    entry.ok_or_else(|| UnknownGrammarBackend { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_an_unknown_one_is_told_of_them() {
        assert!(known().is_sorted());
        let error = find("xgrammar").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("unknown grammar backend `xgrammar`; known: {}", known().join(", "))
        );
        assert_eq!(find("llguidance").unwrap().name, "llguidance");
    }
}
