//! The library llguidance.
//!
//! Upstream: `sglang/srt/constrained/llguidance_backend.py`.

mod grammar;
mod interior;
mod lexers;
mod masks;
mod parser;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, sync::Arc};

use llguidance::{
    ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
};
use serde_json::{Map, Value, json};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv};
use types::TokenGrammar;

use self::{
    grammar::{LlGrammar, first_line},
    lexers::Lexers,
    masks::MaskStore,
    parser::LlParser,
};
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
    masks: Arc<MaskStore>,
    json: JsonOptions,
}

/// A grammar as the library reads it.
struct Readable {
    grammar: TopLevelGrammar,
    /// See [`Lexers::new`].
    repeats: bool,
}

impl From<TopLevelGrammar> for Readable {
    fn from(grammar: TopLevelGrammar) -> Self {
        Self { grammar, repeats: false }
    }
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
        let vocabulary = Arc::clone(vocabulary);
        let masks = Arc::new(MaskStore::new(factory.slicer()));
        Ok(Self { factory, vocabulary, special, automata, masks, json })
    }

    /// A grammar as the library reads it.
    fn readable(&self, spec: &GrammarSpec) -> Result<Readable, String> {
        Ok(match spec.kind {
            GrammarKind::JsonSchema => self.json_schema(&spec.text)?.into(),
            GrammarKind::Regex => {
                TopLevelGrammar::from_regex(anchors::without_anchors(&spec.text)).into()
            }
            GrammarKind::Ebnf => TopLevelGrammar::from_lark(ebnf::to_lark(&spec.text)?).into(),
            GrammarKind::StructuralTag => self.structural_tag(&spec.text)?,
        })
    }

    /// A grammar that the library follows.
    fn followed(&self, readable: Readable) -> Result<LlGrammar, String> {
        let parser = LlParser::new(self.factory.create_parser(readable.grammar));
        if let Some(reason) = parser.error() {
            return Err(first_line(reason).to_owned());
        }
        let lexers = Lexers::new(parser, readable.repeats, &self.masks);
        Ok(LlGrammar::new(lexers, &self.vocabulary))
    }

    fn json_schema(&self, text: &str) -> Result<TopLevelGrammar, String> {
        let schema = match text {
            GrammarSpec::ANY_JSON => json!({}),
            text => serde_json::from_str(text).map_err(|error| error.to_string())?,
        };
        Ok(TopLevelGrammar::from_json_schema(self.spaced(&schema)?))
    }

    fn structural_tag(&self, text: &str) -> Result<Readable, String> {
        let tag = structural_tag::normalized(text)?;
        let lark = structural_tag::to_lark(&tag, &self.special, &|schema| self.spaced(schema))?;
        let repeats = structural_tag::repeats(&tag, &self.special);
        Ok(Readable { grammar: TopLevelGrammar::from_lark(lark), repeats })
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
        if spec.kind == GrammarKind::Regex
            && let Ok(grammar) = self.automata.compile(&spec.text, AUTOMATON_LIMITS)
        {
            return Ok(grammar);
        }
        match self.readable(spec).and_then(|readable| self.followed(readable)) {
            Ok(grammar) => Ok(Box::new(grammar)),
            Err(reason) => Err(CompileError::Invalid { kind: spec.kind, reason }),
        }
    }
}

impl fmt::Debug for LlGuidance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlGuidance").field("json", &self.json).finish_non_exhaustive()
    }
}
