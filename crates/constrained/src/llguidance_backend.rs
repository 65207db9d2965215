//! The library llguidance.
//!
//! Upstream: `sglang/srt/constrained/llguidance_backend.py`.

use std::{fmt, sync::Arc};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
};
use serde_json::{Map, Value, json};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv};
use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

use crate::{
    CompileError, GrammarBackend, GrammarKind, GrammarSpec, JsonOptions, Vocabulary,
    VocabularyError, ebnf, schema_levels,
    structural_tag::{self, SpecialTokens},
};

/// States of a lexer are made while tokens come and take a kilobyte or two each, so a
/// completion never holds more than some tens of megabytes of them.
const MAX_LEXER_STATES: usize = 30_000;
/// Symbols in productions.
const MAX_GRAMMAR_SIZE: usize = 100_000;

/// Grammars over one vocabulary.
pub(crate) struct LlGuidance {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
    special: SpecialTokens,
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
        let factory = ParserFactory::new(
            &env,
            InferenceCapabilities::default(),
            &llguidance::earley::SlicedBiasComputer::general_slices(),
        );
        let mut factory = factory.map_err(|error| VocabularyError::Backend(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: MAX_LEXER_STATES,
            max_grammar_size: MAX_GRAMMAR_SIZE,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory, vocabulary: Arc::clone(vocabulary), special, json })
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
            GrammarKind::Regex => TopLevelGrammar::from_regex(without_anchors(&spec.text)),
            GrammarKind::Ebnf => {
                TopLevelGrammar::from_lark(ebnf::to_lark(&spec.text).map_err(invalid)?)
            }
            GrammarKind::StructuralTag => {
                TopLevelGrammar::from_lark(self.structural_tag(&spec.text).map_err(invalid)?)
            }
        };
        let parser = self.factory.create_parser(grammar);
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(reason) => Err(invalid(first_line(&reason))),
            None => {
                let vocabulary = Arc::clone(&self.vocabulary);
                Ok(Box::new(LlGrammar { matcher, vocabulary, is_terminated: false }))
            }
        }
    }
}

/// The whole completion has to match, so anchors at both ends say nothing new.
fn without_anchors(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if rest.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 0 => rest,
        _ => regex,
    }
}

/// Without the library's own stack.
fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().to_owned()
}

impl fmt::Debug for LlGuidance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlGuidance").field("json", &self.json).finish_non_exhaustive()
    }
}

/// One grammar, followed.
struct LlGrammar {
    matcher: Matcher,
    vocabulary: Arc<Vocabulary>,
    /// A token that ends the completion was accepted, of which the matcher knows nothing.
    is_terminated: bool,
}

impl LlGrammar {
    fn may_end(&mut self) -> Result<bool, GrammarError> {
        Ok(self.matcher.is_stopped() || self.matcher.is_accepting().map_err(failed)?)
    }
}

fn failed(error: impl fmt::Display) -> GrammarError {
    GrammarError::Backend(first_line(&error.to_string()))
}

impl TokenGrammar for LlGrammar {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(failed)?;
        let mut mask = Vec::from(allowed);
        mask.resize(self.vocabulary.mask_words(), 0);
        if mask.iter().all(|&word| word == 0) {
            return Err(GrammarError::DeadEnd);
        }
        Ok(NextTokens::Of(mask))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if self.is_terminated {
            return Err(GrammarError::Refused(token));
        }
        if self.vocabulary.is_end(token) {
            self.is_terminated = self.may_end()?;
            return if self.is_terminated { Ok(()) } else { Err(GrammarError::Refused(token)) };
        }
        match self.matcher.try_consume_tokens(&[token]).map_err(failed)? {
            1 => Ok(()),
            _ => Err(GrammarError::Refused(token)),
        }
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let num_ends = usize::from(self.is_terminated && num_tokens > 0);
        self.matcher.rollback(num_tokens - num_ends).map_err(|_| GrammarError::Rollback)?;
        self.is_terminated &= num_ends == 0;
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(Self {
            matcher: self.matcher.deep_clone(),
            vocabulary: Arc::clone(&self.vocabulary),
            is_terminated: self.is_terminated,
        })
    }
}

impl fmt::Debug for LlGrammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_terminated, .. } = self;
        f.debug_struct("LlGrammar").field("is_terminated", is_terminated).finish_non_exhaustive()
    }
}
