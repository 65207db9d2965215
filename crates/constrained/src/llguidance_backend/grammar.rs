//! A grammar that the library follows.

use std::{fmt, sync::Arc};

use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

use super::{
    lexers::{Lease, Lexers},
    masks::{History, Place, Step},
    parser::{LexemeEnd, LexerPlace, LlParser},
};
use crate::{Vocabulary, ending::Ending};

/// One grammar, followed. Its lexer is shared with others that follow the grammar, until it
/// gives up: then it is followed with a lexer of its own from the beginning on.
pub(super) struct LlGrammar {
    parser: LlParser,
    lexers: Arc<Lexers>,
    /// `None`: the lexer is its own.
    lease: Option<Lease>,
    vocabulary: Arc<Vocabulary>,
    /// The tokens that the parser has taken, and where it was after each if that is known.
    pub(super) taken: Vec<(TokenId, Option<Place>)>,
    ending: Ending,
}

impl LlGrammar {
    pub(super) fn new(lexers: Lexers, vocabulary: &Arc<Vocabulary>) -> Self {
        Self::at_the_beginning(Arc::new(lexers), Arc::clone(vocabulary))
    }

    /// The same grammar at its beginning.
    pub(super) fn fresh(&self) -> Self {
        Self::at_the_beginning(Arc::clone(&self.lexers), Arc::clone(&self.vocabulary))
    }

    fn at_the_beginning(lexers: Arc<Lexers>, vocabulary: Arc<Vocabulary>) -> Self {
        let (parser, lease) = Lexers::lease(&lexers);
        let (lease, taken) = (Some(lease), Vec::new());
        Self { parser, lexers, lease, vocabulary, taken, ending: Ending::default() }
    }

    /// What `ask` gets from the parser. A lexer that many have used may be full where a new
    /// one is not.
    fn asked<T>(
        &mut self,
        ask: impl Fn(&mut LlParser) -> Result<T, String>,
    ) -> Result<T, GrammarError> {
        let failed = |error: String| GrammarError::Backend(first_line(&error).to_owned());
        let answer = ask(&mut self.parser);
        let Err(error) = &answer else { return answer.map_err(failed) };
        let Some(lease) = self.lease.take() else { return answer.map_err(failed) };
        lease.retire();
        let mut parser = self.lexers.cold();
        match self.taken.iter().all(|&(token, _)| parser.accept(token) == Ok(true)) {
            true => self.parser = parser,
            false => return Err(failed(error.clone())),
        }
        ask(&mut self.parser).map_err(failed)
    }

    /// Where the parser is, in the numbers of a shared lexer.
    pub(super) fn place(&self) -> Option<Place> {
        self.lease.as_ref()?;
        self.taken.last().map_or_else(|| self.lexers.beginning(), |(_, place)| *place)
    }

    /// Where the parser is now that it has taken `token`, in which these lexemes ended.
    fn place_after(&mut self, before: Place, token: TokenId, ends: &[LexemeEnd]) -> Option<Place> {
        let lease = self.lease.as_ref()?;
        let lexer = self.parser.lexer_place().ok()?;
        let repeats = |state| self.lexers.is_repeated(LexerPlace { state, is_within: false });
        let mut history = before.history;
        if self.vocabulary.bytes(token).is_empty() {
            history = lease.places().history(history, Step::Token(before.lexer, token));
        }
        for end in ends {
            history = match end.next.is_none() && repeats(end.after) {
                true => History::default(),
                false => lease.places().history(history, Step::Lexeme(end.state, end.next)),
            };
        }
        if self.lexers.is_repeated(lexer) {
            history = History::default();
        }
        Some(Place { history, lexer })
    }

    /// The next mask, if the parser or another was here before.
    pub(super) fn known_mask(&self) -> Option<Arc<[u32]>> {
        let (place, lease) = (self.place()?, self.lease.as_ref()?);
        lease.places().mask(&place).filter(|_| !self.parser.is_stopped())
    }

    pub(super) fn new_mask(&mut self) -> Result<Vec<u32>, GrammarError> {
        let allowed = self.asked(LlParser::mask)?;
        let mut mask = Vec::from(allowed);
        mask.resize(self.vocabulary.mask_words(), 0);
        if mask.iter().all(|&word| word == 0) {
            return Err(GrammarError::DeadEnd);
        }
        let (place, is_stopped) = (self.place(), self.parser.is_stopped());
        if let Some(lease) = self.lease.as_mut().filter(|_| !is_stopped) {
            let (work, num_nodes) = self.parser.mask_cost();
            if let Some(place) = place {
                lease.places().keep(place, &mask, num_nodes);
            }
            lease.spend(work);
        }
        Ok(mask)
    }
}

/// Without the library's own stack.
pub(super) fn first_line(error: &str) -> &str {
    error.lines().next().unwrap_or_default()
}

impl TokenGrammar for LlGrammar {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        let mask = match self.known_mask() {
            Some(mask) => mask.to_vec(),
            None => self.new_mask()?,
        };
        Ok(NextTokens::Of(mask))
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if self.vocabulary.is_end(token) {
            let may_end = !self.ending.is_reached() && self.asked(LlParser::may_end)?;
            return self.ending.accept(token, may_end);
        }
        if self.ending.is_reached() {
            return Err(GrammarError::Refused(token));
        }
        let before = self.place().and_then(|place| {
            // A parser that fails here fails below.
            let ends = self.parser.lexeme_ends(self.vocabulary.bytes(token)).ok()?;
            Some((place, ends))
        });
        if !self.asked(|parser| parser.accept(token))? {
            return Err(GrammarError::Refused(token));
        }
        let place = before.and_then(|(place, ends)| self.place_after(place, token, &ends));
        self.taken.push((token, place));
        Ok(())
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let num_taken = self.ending.tokens_before(num_tokens);
        let left = self.taken.len().checked_sub(num_taken).ok_or(GrammarError::Rollback)?;
        self.asked(|parser| parser.rollback(num_taken))?;
        self.taken.truncate(left);
        self.ending.rollback(num_tokens);
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        self.ending.is_reached()
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        if self.taken.is_empty() && !self.ending.is_reached() {
            return Box::new(self.fresh());
        }
        let (lexers, vocabulary) = (Arc::clone(&self.lexers), Arc::clone(&self.vocabulary));
        // A lexer of its own stays that of one request.
        let parser = match &self.lease {
            Some(_) => self.parser.clone(),
            None => self.parser.deep_clone(),
        };
        let (lease, taken, ending) = (self.lease.clone(), self.taken.clone(), self.ending);
        Box::new(Self { parser, lexers, lease, vocabulary, taken, ending })
    }
}

impl fmt::Debug for LlGrammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlGrammar").field("ending", &self.ending).finish_non_exhaustive()
    }
}
