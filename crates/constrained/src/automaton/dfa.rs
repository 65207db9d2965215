//! An automaton over bytes, and the tokens that it lets pass in each of its states.
//!
//! Equal masks are kept once: states that only count differ in nothing else.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton as _, StartKind, dense},
    nfa::thompson,
    util::{start, syntax},
};
use toktrie::Recognizer;

use super::Tokens;

/// A state.
pub(super) type State = regex_automata::util::primitives::StateID;

/// Groups inside of groups.
const MAX_DEPTH: u32 = 200;
/// Masks kept for one automaton, the same one for several states counted for each.
const MAX_STATES_KEPT: usize = 50_000;

/// How large an automaton may get, which bounds the time it takes to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of the expression before it is made deterministic.
    pub(crate) nfa_bytes: usize,
    /// Bytes needed on the way.
    pub(crate) determinize_bytes: usize,
    /// Bytes of the automaton, which the cache of grammars holds.
    pub(crate) dfa_bytes: usize,
}

/// An automaton for whole texts.
pub(super) struct Automaton {
    dfa: dense::DFA<Vec<u32>>,
    start: State,
    /// By the states' index: whether a text that may end can still come of it.
    is_live: Vec<bool>,
    masks: Mutex<Masks>,
}

#[derive(Default)]
struct Masks {
    by_state: HashMap<State, Arc<[u32]>>,
    distinct: HashSet<Arc<[u32]>>,
}

impl Automaton {
    /// For the texts that `regex` matches from the beginning to the end.
    ///
    /// # Errors
    /// What is wrong with the expression, or that the automaton would be too large.
    pub(super) fn new(regex: &str, limits: Limits) -> Result<Self, String> {
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .accelerate(false)
            .dfa_size_limit(Some(limits.dfa_bytes))
            .determinize_size_limit(Some(limits.determinize_bytes));
        let nfa = thompson::Config::new()
            .nfa_size_limit(Some(limits.nfa_bytes))
            .which_captures(thompson::WhichCaptures::None);
        let dfa = dense::Builder::new()
            .configure(config)
            .thompson(nfa)
            .syntax(syntax::Config::new().nest_limit(MAX_DEPTH))
            .build(regex)
            .map_err(|error| reason(&error))?;
        let start = dfa
            .start_state(&start::Config::new().anchored(Anchored::Yes))
            .map_err(|error| error.to_string())?;
        let is_live = live(&dfa, start);
        let automaton = Self { dfa, start, is_live, masks: Mutex::default() };
        match automaton.is_live(start) {
            true => Ok(automaton),
            false => Err("nothing matches it".to_owned()),
        }
    }

    pub(super) fn start(&self) -> State {
        self.start
    }

    pub(super) fn may_end(&self, state: State) -> bool {
        may_end(&self.dfa, state)
    }

    /// The state after these bytes; `None` if no text that may end goes on so.
    pub(super) fn after(&self, state: State, bytes: &[u8]) -> Option<State> {
        bytes.iter().try_fold(state, |state, &byte| self.step(state, byte))
    }

    fn step(&self, state: State, byte: u8) -> Option<State> {
        let next = self.dfa.next_state(state, byte);
        self.is_live(next).then_some(next)
    }

    fn is_live(&self, state: State) -> bool {
        self.is_live[index(&self.dfa, state)]
    }

    /// The tokens that may come next, and those that end a completion if it may end here.
    pub(super) fn mask(&self, state: State, tokens: &Tokens) -> Arc<[u32]> {
        let lock = || self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mask) = lock().by_state.get(&state) {
            return Arc::clone(mask);
        }
        let mask = self.new_mask(state, tokens);
        lock().keep(state, mask, tokens)
    }

    fn new_mask(&self, state: State, tokens: &Tokens) -> Arc<[u32]> {
        let trie = tokens.env.tok_trie();
        let mut allowed = trie.alloc_token_set();
        trie.add_bias(&mut Walk { automaton: self, states: vec![state] }, &mut allowed, &[]);
        let mut mask = Vec::from(allowed);
        mask.resize(tokens.vocabulary.mask_words(), 0);
        for &end in tokens.vocabulary.end() {
            let (word, bit) = (&mut mask[end as usize / 32], 1 << (end % 32));
            *word = if self.may_end(state) { *word | bit } else { *word & !bit };
        }
        mask.into()
    }

    /// The bytes of the masks that are kept.
    pub(super) fn num_mask_bytes(&self) -> usize {
        let masks = self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        masks.distinct.iter().map(|mask| size_of_val(&**mask)).sum()
    }
}

impl Masks {
    /// The mask, which is kept if there is room.
    fn keep(&mut self, state: State, mask: Arc<[u32]>, tokens: &Tokens) -> Arc<[u32]> {
        let mask = match self.distinct.get(&mask) {
            Some(same) => Arc::clone(same),
            None if tokens.has_room_for(size_of_val(&*mask)) => {
                tokens.num_mask_bytes.fetch_add(size_of_val(&*mask), Ordering::Relaxed);
                self.distinct.insert(Arc::clone(&mask));
                mask
            }
            None => return mask,
        };
        if self.by_state.len() < MAX_STATES_KEPT {
            self.by_state.insert(state, Arc::clone(&mask));
        }
        mask
    }
}

/// Whether the text up to here is matched: a match shows in the state after its end.
fn may_end(dfa: &dense::DFA<Vec<u32>>, state: State) -> bool {
    dfa.is_match_state(dfa.next_eoi_state(state))
}

/// States are numbered by their place in the table of transitions.
fn index(dfa: &dense::DFA<Vec<u32>>, state: State) -> usize {
    state.as_usize() >> dfa.stride2()
}

/// The states from which a state that may end can be reached.
fn live(dfa: &dense::DFA<Vec<u32>>, start: State) -> Vec<bool> {
    let mut before: HashMap<State, Vec<State>> = HashMap::from([(start, Vec::new())]);
    let mut ready = vec![start];
    let mut ends = Vec::new();
    while let Some(state) = ready.pop() {
        if may_end(dfa, state) {
            ends.push(state);
        }
        let mut last = None;
        for byte in dfa.byte_classes().representatives(0..=u8::MAX).filter_map(|unit| unit.as_u8())
        {
            let next = dfa.next_state(state, byte);
            if last.replace(next) == Some(next) || dfa.is_dead_state(next) {
                continue;
            }
            let users = before.entry(next).or_insert_with(|| {
                ready.push(next);
                Vec::new()
            });
            users.push(state);
        }
    }
    let last = before.keys().map(|&state| index(dfa, state)).max().unwrap_or_default();
    let mut is_live = vec![false; last + 1];
    while let Some(state) = ends.pop() {
        if !std::mem::replace(&mut is_live[index(dfa, state)], true) {
            ends.extend(&before[&state]);
        }
    }
    is_live
}

/// The builder's reason, with what lies beneath it, in one line.
fn reason(error: &dense::BuildError) -> String {
    if error.is_size_limit_exceeded() {
        return "the automaton would be too large".to_owned();
    }
    let source = std::error::Error::source(error).map(ToString::to_string);
    let text = source.unwrap_or_else(|| error.to_string());
    // Errors of syntax draw the expression above what is wrong with it.
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// The states along a path of the trie.
struct Walk<'a> {
    automaton: &'a Automaton,
    states: Vec<State>,
}

impl Recognizer for Walk<'_> {
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
        let next = self.states.last().and_then(|&state| self.automaton.step(state, byte));
        self.states.extend(next);
        next.is_some()
    }
}

impl fmt::Debug for Automaton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automaton").field("num_states", &self.is_live.len()).finish_non_exhaustive()
    }
}
