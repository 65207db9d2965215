//! The library llguidance.
//!
//! Upstream: `sglang/srt/constrained/llguidance_backend.py`.

mod grammar;
mod lexers;

use std::{fmt, sync::Arc};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
};
use serde_json::{Map, Value, json};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv};
use types::TokenGrammar;

use self::grammar::{LlGrammar, first_line};
use crate::{
    CompileError, GrammarBackend, GrammarKind, GrammarSpec, JsonOptions, Vocabulary,
    VocabularyError, anchors,
    automaton::{Automata, Limits},
    ebnf, schema_levels,
    structural_tag::{self, SpecialTokens},
};

/// States of a lexer are made while tokens come and take a kilobyte or two each, so a
/// completion never holds more than some tens of megabytes of them.
const MAX_LEXER_STATES: usize = 30_000;
/// Symbols in productions.
const MAX_GRAMMAR_SIZE: usize = 100_000;

/// A regular expression becomes an automaton if that is small, some hundred states: the mask
/// of each is computed once. Of many states each is seen once or never, and the library is
/// the faster one for those.
const AUTOMATON_LIMITS: Limits =
    Limits { nfa_bytes: 128 << 10, determinize_bytes: 1 << 20, dfa_bytes: 128 << 10 };

/// Parts of the vocabulary that a mask takes whole where all their texts may follow. The library's
/// own are inside of JSON strings; plain words are inside of other quoted texts too.
fn slices() -> Vec<String> {
    const PLAIN: &str = r#"[^"\\'`<>\[\]{}()|\x00-\x1F\x7F]{1,10}"#;
    SlicedBiasComputer::general_slices().into_iter().chain([PLAIN.to_owned()]).collect()
}

/// Grammars over one vocabulary.
pub(crate) struct LlGuidance {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
    special: SpecialTokens,
    automata: Automata,
    json: JsonOptions,
}

impl LlGuidance {
    /// # Errors
    /// A vocabulary that the library does not take.
    pub(crate) fn new(
        vocabulary: &Arc<Vocabulary>,
        json: JsonOptions,
    ) -> Result<Self, VocabularyError> {
        let special = SpecialTokens::new(vocabulary)
            .map_err(|error| VocabularyError::Backend(error.to_string()))?;
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(vocabulary.trie()));
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices());
        let mut factory = factory.map_err(|error| VocabularyError::Backend(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: MAX_LEXER_STATES,
            max_grammar_size: MAX_GRAMMAR_SIZE,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        let automata = Automata::new(vocabulary, env);
        Ok(Self { factory, vocabulary: Arc::clone(vocabulary), special, automata, json })
    }

    /// A grammar that the library follows.
    fn followed(&self, grammar: TopLevelGrammar) -> Result<Box<dyn TokenGrammar>, String> {
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(reason) => Err(first_line(&reason)),
            None => Ok(Box::new(LlGrammar::new(matcher, &self.vocabulary))),
        }
    }

    fn json_schema(&self, text: &str) -> Result<TopLevelGrammar, String> {
        let schema = match text {
            GrammarSpec::ANY_JSON => json!({}),
            text => serde_json::from_str(text).map_err(|error| error.to_string())?,
        };
        Ok(TopLevelGrammar::from_json_schema(self.spaced(&schema)?))
    }

    fn structural_tag(&self, text: &str) -> Result<String, String> {
        let tag = structural_tag::normalized(text)?;
        structural_tag::to_lark(&tag, &self.special, &|schema| self.spaced(schema))
    }

    /// The schema, with how its JSON is spaced.
    fn spaced(&self, schema: &Value) -> Result<Value, String> {
        schema_levels::check(schema)?;
        let mut schema = match schema {
            Value::Object(schema) => schema.clone(),
            Value::Bool(true) => Map::new(),
            _ => return Err("a schema is an object".to_owned()),
        };
        schema.insert("x-guidance".to_owned(), self.spacing());
        Ok(Value::Object(schema))
    }

    fn spacing(&self) -> Value {
        if self.json.disable_any_whitespace {
            return json!({
                "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ",
            });
        }
        match &self.json.whitespace_pattern {
            Some(pattern) => json!({ "whitespace_pattern": pattern }),
            None => json!({}),
        }
    }
}

impl GrammarBackend for LlGuidance {
    fn compile(&self, spec: &GrammarSpec) -> Result<Box<dyn TokenGrammar>, CompileError> {
        let kind = spec.kind;
        let invalid = |reason: String| CompileError::Invalid { kind, reason };
        let grammar = match kind {
            GrammarKind::JsonSchema => self.json_schema(&spec.text).map_err(invalid)?,
            GrammarKind::Regex => match self.automata.compile(&spec.text, AUTOMATON_LIMITS) {
                Ok(grammar) => return Ok(grammar),
                Err(_) => TopLevelGrammar::from_regex(anchors::without_anchors(&spec.text)),
            },
            GrammarKind::Ebnf => {
                TopLevelGrammar::from_lark(ebnf::to_lark(&spec.text).map_err(invalid)?)
            }
            GrammarKind::StructuralTag => {
                TopLevelGrammar::from_lark(self.structural_tag(&spec.text).map_err(invalid)?)
            }
        };
        self.followed(grammar).map_err(invalid)
    }
}

impl fmt::Debug for LlGuidance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlGuidance").field("json", &self.json).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn backend(vocabulary: &Arc<Vocabulary>) -> LlGuidance {
        LlGuidance::new(vocabulary, JsonOptions::default()).unwrap()
    }

    /// A regular expression by the library alone.
    pub(crate) fn by_the_library(
        vocabulary: &Arc<Vocabulary>,
        regex: &str,
    ) -> Box<dyn TokenGrammar> {
        backend(vocabulary).followed(TopLevelGrammar::from_regex(regex)).unwrap()
    }

    /// What follows a regular expression in the library.
    pub(super) fn matcher(regex: &str) -> Matcher {
        let backend = backend(&Arc::new(crate::testing::vocabulary()));
        Matcher::new(backend.factory.create_parser(TopLevelGrammar::from_regex(regex)))
    }
}
