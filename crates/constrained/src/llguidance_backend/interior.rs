//! What a token does within one lexeme depends on the lexer alone; the parser is needed for
//! tokens in which a lexeme ends, and these are few where a walk over the vocabulary takes long.

use llguidance::{
    derivre::StateID,
    earley::{BiasComputer, ParserRecognizer},
};
use toktrie::{Recognizer, SimpleVob, TokTrie};
use types::TokenId;

use super::masks::{KnownPlaces, Seen};

/// Masks that took long in a state before it is looked into, which takes some milliseconds.
const MAX_SLOW: u32 = 4;
/// States that come within a token. There are more where characters are counted, which takes
/// the lexer much work to see.
const MAX_STATES: usize = 200;
/// Tokens in which a lexeme ends. With more of them, walking over the vocabulary is as fast.
const MAX_LEAVING: usize = 8192;

/// The tokens that may follow in one state of a lexer.
#[derive(Debug)]
pub(super) struct Interior {
    /// Those that stay within the lexeme: allowed.
    within: SimpleVob,
    /// Those in which it ends, in the order of their texts: the parser has to say.
    leaving: Box<[TokenId]>,
}

impl Interior {
    /// For the state that the lexer is in; `None` if it does not pay.
    pub(super) fn new(recognizer: &mut ParserRecognizer<'_>, trie: &TokTrie) -> Option<Self> {
        let mut tokens = |takes_ends| {
            let mut walk = LexerWalk::new(&mut *recognizer, takes_ends);
            let mut tokens = trie.alloc_token_set();
            trie.add_bias(&mut walk, &mut tokens, &[]);
            (walk.num_states <= MAX_STATES).then_some(tokens)
        };
        let (within, mut leaving) = (tokens(false)?, tokens(true)?);
        leaving.sub(&within);
        if leaving.num_set() > MAX_LEAVING {
            return None;
        }
        let mut leaving = leaving.to_list();
        leaving.sort_by_key(|&token| trie.token(token));
        Some(Self { within, leaving: leaving.into() })
    }

    pub(super) fn num_bytes(&self) -> usize {
        size_of_val(self.within.as_slice()) + size_of_val(&*self.leaving)
    }

    /// What may come next.
    fn mask(&self, recognizer: &mut ParserRecognizer<'_>, trie: &TokTrie) -> SimpleVob {
        let mut mask = self.within.clone();
        recognizer.trie_started("leaving");
        // Of `last` the first `taken` bytes are pushed; if there are more, the next was refused.
        let (mut last, mut taken, mut num_pushed): (&[u8], _, _) = (&[], 0, 0);
        for &token in &self.leaving {
            let text = trie.token(token);
            let common = last.iter().zip(text).take_while(|(a, b)| a == b).count();
            if common > taken {
                continue;
            }
            recognizer.pop_bytes(taken - common);
            taken = common;
            while let Some(&byte) = text.get(taken)
                && recognizer.try_push_byte(byte)
            {
                taken += 1;
            }
            if taken == text.len() {
                mask.allow_token(token);
            }
            num_pushed += text.len() - common;
            last = text;
        }
        recognizer.trie_finished();
        recognizer.save_stats(num_pushed);
        mask
    }
}

impl BiasComputer for KnownPlaces {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let sliced = self.library();
        if !start.is_empty() {
            return sliced.compute_bias(recognizer, start);
        }
        let state = recognizer.lexer_state();
        let seen = self.seen(state);
        if let Some(Seen::Interior(interior)) = seen {
            return interior.0.mask(recognizer, sliced.trie());
        }
        let before = recognizer.stats_mut().trie_nodes_walked;
        let mask = sliced.compute_bias(recognizer, start);
        let num_nodes = recognizer.stats_mut().trie_nodes_walked - before;
        if self.is_worth_it(num_nodes) {
            match seen.unwrap_or(Seen::Slow(0)) {
                Seen::Slow(count) if count < MAX_SLOW => self.see(state, Seen::Slow(count + 1)),
                Seen::Slow(_) => {
                    self.see_interior(state, Interior::new(recognizer, sliced.trie()));
                }
                Seen::Interior(_) | Seen::Useless => {}
            }
        }
        mask
    }

    fn trie(&self) -> &TokTrie {
        self.library().trie()
    }
}

/// The lexer's states along a path of the trie; `None` where a lexeme has ended.
struct LexerWalk<'a, 'b> {
    recognizer: &'a mut ParserRecognizer<'b>,
    states: Vec<Option<StateID>>,
    /// Goes on where a lexeme has ended, whatever comes.
    takes_ends: bool,
    /// By the number of a state: it came.
    came: Vec<bool>,
    num_states: usize,
}

impl<'a, 'b> LexerWalk<'a, 'b> {
    fn new(recognizer: &'a mut ParserRecognizer<'b>, takes_ends: bool) -> Self {
        let states = vec![Some(recognizer.lexer_state())];
        Self { recognizer, states, takes_ends, came: Vec::new(), num_states: 0 }
    }

    fn count(&mut self, state: StateID) {
        let index = state.as_usize();
        if self.came.len() <= index {
            self.came.resize(index + 1, false);
        }
        self.num_states += usize::from(!std::mem::replace(&mut self.came[index], true));
    }

    /// The state after a byte; `None` for a byte that is refused.
    fn step(&mut self, state: StateID, byte: u8) -> Option<Option<StateID>> {
        let next = self.recognizer.lexer_mut().transition_start_state(state, Some(byte), &None);
        if next.is_dead() {
            // Another lexeme may begin here, if this one may end.
            let may_end = !self.recognizer.lexer_mut().try_lexeme_end(state).is_error();
            return may_end.then_some(None);
        }
        self.count(next);
        Some((!next.has_lowest_match()).then_some(next))
    }
}

impl Recognizer for LexerWalk<'_, '_> {
    fn pop_bytes(&mut self, num: usize) {
        self.states.truncate(self.states.len() - num);
    }

    fn collapse(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    fn trie_finished(&mut self) {
        self.states.truncate(1);
    }

    fn try_push_byte(&mut self, byte: u8) -> bool {
        let next = match self.states.last() {
            _ if self.num_states > MAX_STATES => None,
            Some(&Some(state)) => self.step(state, byte),
            _ => Some(None),
        };
        let next = next.filter(|next| next.is_some() || self.takes_ends);
        self.states.extend(next);
        next.is_some()
    }
}
