//! The library's parser of one completion.

use std::{panic::AssertUnwindSafe, sync::Arc};

use llguidance::{
    TokenParser,
    derivre::StateID,
    earley::{BiasComputer, ParserRecognizer},
    panic_utils,
};
use toktrie::{Recognizer, SimpleVob};
use types::TokenId;

/// A parser, or why there is none any more. The library's own `Matcher` does the same and shows
/// nothing of where it is.
#[derive(Clone)]
pub(super) struct LlParser(Result<TokenParser, String>);

/// Where the lexer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LexerPlace {
    /// A number of this lexer.
    pub(super) state: StateID,
    /// Some of a lexeme's text is read.
    pub(super) is_within: bool,
}

/// The end of a lexeme. With what came before it decides what the parser expects.
#[derive(Debug, Clone, Copy)]
pub(super) struct LexemeEnd {
    /// The state that tells which lexemes end here.
    pub(super) state: StateID,
    /// The first byte of the next one, if it took that byte to see the end.
    pub(super) next: Option<u8>,
    /// The state after it.
    pub(super) after: StateID,
}

impl LlParser {
    /// At the beginning; the parser of a grammar that cannot be followed fails always.
    pub(super) fn new<E: ToString>(parser: Result<TokenParser, E>) -> Self {
        Self(parser.map_err(|error| error.to_string()).map(|mut parser| {
            if parser.is_fresh() {
                parser.start_without_prompt();
            }
            parser
        }))
    }

    /// Lexers are shared by copies; this one gets its own.
    pub(super) fn deep_clone(&self) -> Self {
        Self(self.0.as_ref().map(TokenParser::deep_clone).map_err(Clone::clone))
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    pub(super) fn compute_masks_by(&mut self, computer: Arc<dyn BiasComputer>) {
        if let Ok(parser) = &mut self.0 {
            parser.bias_computer = computer;
        }
    }

    /// What `ask` gets. After a failure, or a panic, the parser is none any more.
    fn asked<T>(
        &mut self,
        ask: impl FnOnce(&mut TokenParser) -> Result<T, String>,
    ) -> Result<T, String> {
        let parser = self.0.as_mut().map_err(|error| error.clone())?;
        let answer = panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(ask(parser))));
        let answer = answer.unwrap_or_else(|panic| Err(panic.to_string()));
        if let Err(error) = &answer {
            self.0 = Err(error.clone());
        }
        answer
    }

    /// Nothing may follow but a token that ends the completion.
    pub(super) fn is_stopped(&self) -> bool {
        self.0.as_ref().is_ok_and(TokenParser::stopped)
    }

    pub(super) fn may_end(&mut self) -> Result<bool, String> {
        self.asked(|parser| Ok(parser.stopped() || parser.is_accepting()))
    }

    /// The tokens that may come next, and those that end a completion if it may end here.
    pub(super) fn mask(&mut self) -> Result<SimpleVob, String> {
        self.asked(|parser| match parser.stopped() {
            true => Ok(parser.token_env.tok_trie().eos_token_set()),
            false => parser.compute_mask().map_err(|error| error.to_string()),
        })
    }

    /// Of the last mask: work of the lexer, in the library's units, and nodes of the
    /// vocabulary's tree that were looked at.
    pub(super) fn mask_cost(&self) -> (u64, usize) {
        let stats = self.0.as_ref().map(TokenParser::last_step_stats);
        stats.map_or((0, 0), |stats| (stats.lexer_cost, stats.trie_nodes_walked))
    }

    /// Takes the token if it may come next.
    pub(super) fn accept(&mut self, token: TokenId) -> Result<bool, String> {
        self.asked(|parser| {
            let text = |error: &dyn std::fmt::Display| error.to_string();
            if !parser.validate_token(token).map_err(|error| text(&error))? {
                // A lexer that has given up refuses everything.
                return match parser.parser.get_error() {
                    Some(error) => Err(error.message()),
                    None => Ok(false),
                };
            }
            let num_back = parser.consume_token(token).map_err(|error| text(&error))?;
            parser.check_stop().map_err(|error| text(&error))?;
            match num_back {
                0 => Ok(true),
                _ => Err("the grammar takes tokens back".to_owned()),
            }
        })
    }

    /// Takes back the last tokens.
    pub(super) fn rollback(&mut self, num_tokens: usize) -> Result<(), String> {
        self.asked(|parser| {
            // The library keeps its last mask by a place's number, which stands for another
            // place once tokens are taken back.
            parser.invalidate_bias_cache();
            parser.rollback(num_tokens).map_err(|error| error.to_string())
        })
    }

    pub(super) fn lexer_place(&mut self) -> Result<LexerPlace, String> {
        self.asked(|parser| {
            let state = parser.parser.with_recognizer(|recognizer| recognizer.lexer_state());
            Ok(LexerPlace { state, is_within: parser.parser.has_pending_lexeme_bytes() })
        })
    }

    /// The lexemes that would end within `text`. Nothing is taken.
    pub(super) fn lexeme_ends(&mut self, text: &[u8]) -> Result<Vec<LexemeEnd>, String> {
        self.asked(|parser| Ok(parser.parser.with_recognizer(|rec| lexeme_ends(rec, text))))
    }
}

fn lexeme_ends(recognizer: &mut ParserRecognizer<'_>, text: &[u8]) -> Vec<LexemeEnd> {
    let ends_in = |state: StateID| state.is_dead() || state.has_lowest_match();
    let mut state = recognizer.lexer_state();
    let is_within_one = text.iter().all(|&byte| {
        state = recognizer.lexer_mut().transition_start_state(state, Some(byte), &None);
        !ends_in(state)
    });
    if is_within_one {
        return Vec::new();
    }
    let mut ends = Vec::new();
    recognizer.trie_started("lexeme ends");
    for &byte in text {
        let before = recognizer.lexer_state();
        let next = recognizer.lexer_mut().transition_start_state(before, Some(byte), &None);
        if !recognizer.try_push_byte(byte) {
            break;
        }
        let after = recognizer.lexer_state();
        // A lexeme ends where nothing could go on with it, or where its next byte would not.
        if next.has_lowest_match() {
            ends.push(LexemeEnd { state: next, next: None, after });
        } else if next.is_dead() {
            ends.push(LexemeEnd { state: before, next: Some(byte), after });
        }
    }
    recognizer.trie_finished();
    ends
}
