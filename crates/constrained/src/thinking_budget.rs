//! Reasoning that is cut when it has gone on for too long.
//!
//! Upstream: `max_think_tokens` in `sglang/srt/constrained/reasoner_grammar_backend.py`.

use std::sync::Arc;

use types::{GrammarError, NextTokens, TokenGrammar, TokenId};

/// What a model's reasoning is marked with, in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasoningMarks {
    /// Begins it.
    pub begin: Vec<TokenId>,
    /// Ends it.
    pub end: Arc<[TokenId]>,
    /// The beginning of a tool call, where that ends reasoning too.
    pub call: Option<Vec<TokenId>>,
    /// It may begin again after its end.
    pub reopens: bool,
    /// Tokens that may not come inside of it.
    pub excluded: Vec<TokenId>,
}

/// Lets a completion reason for so many tokens, and then makes it end its reasoning. Some
/// tokens may not come before that end; all others are up to another grammar, or free.
#[derive(Debug, Clone)]
pub struct ThinkingBudget {
    marks: Arc<ReasoningMarks>,
    /// `None`: without a limit.
    budget: Option<usize>,
    vocab_size: usize,
    grammar: Option<Box<dyn TokenGrammar>>,
    /// Those accepted.
    tokens: Vec<TokenId>,
    /// Before the first token, and after each.
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    place: Place,
    /// Tokens of reasoning that has ended.
    spent: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Before,
    /// Of reasoning that began with this token.
    Inside(usize),
    After,
}

impl ThinkingBudget {
    /// For a completion that begins inside of reasoning, or that opens it itself.
    pub fn new(
        marks: Arc<ReasoningMarks>,
        budget: Option<usize>,
        begins_inside: bool,
        vocab_size: usize,
        grammar: Option<Box<dyn TokenGrammar>>,
    ) -> Self {
        let place = if begins_inside { Place::Inside(0) } else { Place::Before };
        let states = vec![State { place, spent: 0 }];
        Self { marks, budget, vocab_size, grammar, tokens: Vec::new(), states }
    }

    fn state(&self) -> State {
        *self.states.last().expect("the first is never taken back")
    }

    /// The token that has to come: the next of the mark, part of which may be there already.
    fn forced(&self) -> Option<TokenId> {
        let State { place: Place::Inside(from), spent } = self.state() else { return None };
        let thought = &self.tokens[from..];
        if self.budget.is_none_or(|budget| spent + thought.len() < budget) {
            return None;
        }
        let end = &self.marks.end;
        let num_there = (0..end.len()).rev().find(|&len| thought.ends_with(&end[..len]));
        Some(end[num_there.unwrap_or(0)])
    }

    /// Where the last token has led to.
    fn next_state(&self) -> State {
        let State { place, spent } = self.state();
        let num_tokens = self.tokens.len();
        let place = match place {
            Place::Before if self.tokens.ends_with(&self.marks.begin) => Place::Inside(num_tokens),
            Place::Inside(from) => {
                let thought = &self.tokens[from..];
                let is_call = |call: &Vec<TokenId>| thought.ends_with(call);
                if thought.ends_with(&self.marks.end)
                    || self.marks.call.as_ref().is_some_and(is_call)
                {
                    let spent = spent + thought.len();
                    let place = if self.marks.reopens { Place::Before } else { Place::After };
                    return State { place, spent };
                }
                place
            }
            place => place,
        };
        State { place, spent }
    }
}

impl TokenGrammar for ThinkingBudget {
    fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
        let forced = self.forced();
        let next = self.grammar.as_mut().map_or(Ok(NextTokens::Any), |it| it.next_tokens())?;
        // A grammar that has a say in reasoning comes first.
        let excluded = &self.marks.excluded;
        Ok(match (forced, self.state().place) {
            (Some(token), _) if next.allows(token) => NextTokens::only(token, self.vocab_size),
            (None, Place::Inside(_)) if !excluded.is_empty() => {
                next.without(excluded, self.vocab_size)
            }
            _ => next,
        })
    }

    fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        self.tokens.push(token);
        self.states.push(self.next_state());
        Ok(())
    }

    fn rollback(&mut self, num_tokens: usize) -> Result<(), GrammarError> {
        let left = self.tokens.len().checked_sub(num_tokens).ok_or(GrammarError::Rollback)?;
        if let Some(grammar) = &mut self.grammar {
            grammar.rollback(num_tokens)?;
        }
        self.tokens.truncate(left);
        self.states.truncate(left + 1);
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        self.grammar.as_ref().is_some_and(|grammar| grammar.is_terminated())
    }

    fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AfterReasoning;

    const BEGIN: TokenId = 1;
    const END: [TokenId; 2] = [2, 3];
    const CALL: TokenId = 4;
    const VOCAB_SIZE: usize = 40;

    fn marks(reopens: bool) -> Arc<ReasoningMarks> {
        let (begin, end, call) = (vec![BEGIN], Arc::from(END), Some(vec![CALL]));
        Arc::new(ReasoningMarks { begin, end, call, reopens, excluded: Vec::new() })
    }

    fn budget(budget: usize, begins_inside: bool) -> ThinkingBudget {
        ThinkingBudget::new(marks(false), Some(budget), begins_inside, VOCAB_SIZE, None)
    }

    /// Before each token the one that has to come, if one has to.
    fn forced(grammar: &mut dyn TokenGrammar, tokens: &[TokenId]) -> Vec<Option<TokenId>> {
        let forced = tokens.iter().map(|&token| {
            let next = grammar.next_tokens().unwrap();
            grammar.accept(token).unwrap();
            let NextTokens::Of(mask) = &next else { return None };
            assert_eq!(mask.len(), 2, "as many words as the vocabulary needs");
            let mut allowed = (0..VOCAB_SIZE as TokenId).filter(|&token| next.allows(token));
            let only = allowed.next();
            assert_eq!(allowed.next(), None);
            only
        });
        forced.collect()
    }

    #[test]
    fn the_mark_is_forced_when_the_budget_is_spent() {
        let none = None;
        let seen = forced(&mut budget(2, true), &[9, 9, 2, 3, 9, 9]);
        assert_eq!(seen, [none, none, Some(2), Some(3), none, none]);
        assert_eq!(forced(&mut budget(0, true), &[2, 3, 9]), [Some(2), Some(3), none]);
        // It was begun before, so only the rest has to come.
        assert_eq!(forced(&mut budget(2, true), &[9, 2, 3, 9]), [none, none, Some(3), none]);
        // It came by itself.
        assert_eq!(forced(&mut budget(9, true), &[9, 2, 3, 9, 9]), [none; 5]);
    }

    #[test]
    fn what_comes_before_and_after_reasoning_does_not_count() {
        let none = None;
        let seen = forced(&mut budget(1, false), &[9, 9, BEGIN, 9, 2, 3, BEGIN, 9, 9]);
        assert_eq!(seen, [none, none, none, none, Some(2), Some(3), none, none, none]);
        assert_eq!(forced(&mut budget(1, false), &[9; 5]), [none; 5]);
        assert_eq!(forced(&mut budget(2, true), &[9, CALL, 9, 9]), [none; 4]);
        // Reasoning that goes on after its end has what is left.
        let mut reopening = ThinkingBudget::new(marks(true), Some(2), false, VOCAB_SIZE, None);
        let seen = forced(&mut reopening, &[BEGIN, 9, CALL, 9, BEGIN, 2, 3, 9]);
        assert_eq!(seen, [none, none, none, none, none, Some(2), Some(3), none]);
    }

    #[test]
    fn rolling_back_gives_the_budget_back() {
        let mut grammar = budget(2, false);
        assert_eq!(forced(&mut grammar, &[BEGIN, 9, 9, 2]), [None, None, None, Some(2)]);
        grammar.rollback(2).unwrap();
        assert_eq!(forced(&mut grammar, &[8, 2, 3, 7]), [None, Some(2), Some(3), None]);
        grammar.rollback(6).unwrap();
        assert_eq!(forced(&mut grammar, &[9, 9, 9]), [None; 3]);
        assert_eq!(grammar.rollback(4), Err(GrammarError::Rollback));
        assert!(!grammar.is_terminated());
    }

    /// Takes one token over and over.
    #[derive(Debug, Clone)]
    struct Only(TokenId);

    impl TokenGrammar for Only {
        fn next_tokens(&mut self) -> Result<NextTokens, GrammarError> {
            Ok(NextTokens::only(self.0, VOCAB_SIZE))
        }
        fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
            if token == self.0 { Ok(()) } else { Err(GrammarError::Refused(token)) }
        }
        fn rollback(&mut self, _: usize) -> Result<(), GrammarError> {
            Ok(())
        }
        fn is_terminated(&self) -> bool {
            false
        }
        fn boxed_clone(&self) -> Box<dyn TokenGrammar> {
            Box::new(self.clone())
        }
    }

    #[test]
    fn some_tokens_may_not_come_inside() {
        let excluded = vec![CALL, 39];
        let marks = Arc::new(ReasoningMarks { excluded, ..marks(false).as_ref().clone() });
        let new =
            |grammar| ThinkingBudget::new(Arc::clone(&marks), None, true, VOCAB_SIZE, grammar);
        let mut strict = new(None);
        for token in [9, 9, 2, 3] {
            let next = strict.next_tokens().unwrap();
            let refused = (0..VOCAB_SIZE as TokenId).filter(|&token| !next.allows(token));
            assert_eq!(refused.collect::<Vec<_>>(), [CALL, 39]);
            let NextTokens::Of(mask) = next else { panic!("some are refused") };
            assert_eq!(mask[1] >> 8, 0, "there are 40 tokens");
            strict.accept(token).unwrap();
        }
        assert_eq!(strict.next_tokens(), Ok(NextTokens::Any));
        // A grammar that allows nothing else comes first.
        assert_eq!(
            new(Some(Box::new(Only(39)))).next_tokens(),
            Ok(NextTokens::only(39, VOCAB_SIZE))
        );
    }

    #[test]
    fn a_grammar_follows_the_mark() {
        let after = AfterReasoning::new(Arc::from(END), Box::new(Only(7)));
        let mut both =
            ThinkingBudget::new(marks(false), Some(1), true, VOCAB_SIZE, Some(Box::new(after)));
        let seen = forced(&mut both, &[9, 2, 3, 7, 7]);
        assert_eq!(seen, [None, Some(2), Some(3), Some(7), Some(7)]);
        assert_eq!(both.accept(8), Err(GrammarError::Refused(8)));
        both.rollback(4).unwrap();
        assert_eq!(forced(&mut both, &[2, 3, 7]), [Some(2), Some(3), Some(7)]);
        // One that does not know of reasoning is followed from its first token on.
        let mut first =
            ThinkingBudget::new(marks(false), Some(0), true, VOCAB_SIZE, Some(Box::new(Only(7))));
        assert_eq!(forced(&mut first, &[7, 7]), [Some(7), Some(7)]);
    }
}
