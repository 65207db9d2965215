//! The requests of one session.

use std::collections::{HashMap, HashSet};

use types::{Rid, TokenId};

/// What a request costs besides its tokens, in tokens.
const OVERHEAD: usize = 64;

/// Which request another goes on from, and with how many of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) turn: u64,
    num_kept: usize,
}

/// Requests by the order of their coming. Names may come again: then the latest has it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    requests: HashMap<u64, Request>,
    by_name: HashMap<Rid, u64>,
    next: u64,
    num_tokens: usize,
}

#[derive(Debug)]
struct Request {
    rid: Rid,
    base: Option<Base>,
    /// What it brought.
    input: Vec<TokenId>,
    output: Vec<TokenId>,
    has_ended: bool,
}

impl Request {
    fn cost(&self) -> usize {
        OVERHEAD + self.rid.as_str().len() + self.input.len() + self.output.len()
    }
}

impl Tree {
    pub(super) fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Whether a request runs.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.values().any(|request| !request.has_ended)
    }

    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.by_name.get(&Rid::new(name)).copied()
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.requests.keys().max().copied()
    }

    pub(super) fn has_ended(&self, turn: u64) -> bool {
        self.requests.get(&turn).is_none_or(|request| request.has_ended)
    }

    /// All of a request or of its prompt, cut as Python cuts `[:offset]`, unless that is 0.
    pub(super) fn base(&self, turn: u64, drops_output: bool, offset: i64) -> Base {
        let num_output = self.requests.get(&turn).map_or(0, |request| request.output.len());
        let mut len = self.tokens(turn).len();
        if drops_output {
            len -= num_output;
        }
        let distance = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
        let num_kept = match offset {
            0 => len,
            1.. => len.min(distance),
            _ => len.saturating_sub(distance),
        };
        Base { turn, num_kept }
    }

    /// The prompt of a request with this input.
    pub(super) fn with_history(&self, base: Option<&Base>, input: &[TokenId]) -> Vec<TokenId> {
        let mut tokens = base.map(|base| self.tokens(base.turn)).unwrap_or_default();
        tokens.truncate(base.map_or(0, |base| base.num_kept));
        tokens.extend_from_slice(input);
        tokens
    }

    /// Prompt and completion of a request.
    fn tokens(&self, turn: u64) -> Vec<TokenId> {
        let parent =
            |request: &&Request| request.base.and_then(|base| self.requests.get(&base.turn));
        let path: Vec<&Request> = std::iter::successors(self.requests.get(&turn), parent).collect();
        let mut tokens = Vec::new();
        for request in path.into_iter().rev() {
            tokens.truncate(request.base.map_or(0, |base| base.num_kept));
            tokens.extend_from_slice(&request.input);
            tokens.extend_from_slice(&request.output);
        }
        tokens
    }

    pub(super) fn insert(&mut self, rid: Rid, base: Option<Base>, input: Vec<TokenId>) -> u64 {
        let turn = self.next;
        self.next += 1;
        let request =
            Request { rid: rid.clone(), base, input, output: Vec::new(), has_ended: false };
        self.num_tokens += request.cost();
        self.requests.insert(turn, request);
        self.by_name.insert(rid, turn);
        turn
    }

    pub(super) fn push(&mut self, turn: u64, output: &[TokenId]) {
        if let Some(request) = self.requests.get_mut(&turn) {
            request.output.extend_from_slice(output);
            self.num_tokens += output.len();
        }
    }

    pub(super) fn end(&mut self, turn: u64) {
        if let Some(request) = self.requests.get_mut(&turn) {
            request.has_ended = true;
        }
    }

    /// Takes a request out, and all that goes on from it.
    pub(super) fn remove(&mut self, turn: u64) {
        self.clear_after(Some(turn));
        self.take_out(turn);
    }

    /// Takes out all that goes on from a request, or all there is. Those of them that run,
    /// and that request, if it does, are to be aborted.
    pub(super) fn clear_after(&mut self, root: Option<u64>) -> Vec<Rid> {
        let mut turns: Vec<u64> = self.requests.keys().copied().collect();
        // Who goes on from somebody came later.
        turns.sort_unstable();
        let mut gone = HashSet::new();
        for turn in turns {
            let base = self.requests[&turn].base.map(|base| base.turn);
            let is_after =
                root.is_none() || base == root || base.is_some_and(|base| gone.contains(&base));
            if is_after {
                gone.insert(turn);
            }
        }
        let running = root.iter().chain(&gone).filter_map(|turn| self.requests.get(turn));
        let running = running.filter(|request| !request.has_ended);
        let aborted = running.map(|request| request.rid.clone()).collect();
        gone.into_iter().for_each(|turn| self.take_out(turn));
        aborted
    }

    fn take_out(&mut self, turn: u64) {
        let Some(request) = self.requests.remove(&turn) else { return };
        self.num_tokens -= request.cost();
        if self.by_name.get(&request.rid) == Some(&turn) {
            self.by_name.remove(&request.rid);
        }
    }

    /// Makes a request that has ended the only one, with its history as its own.
    pub(super) fn keep_only(&mut self, turn: u64) {
        let Some(rid) = self.requests.get(&turn).map(|request| request.rid.clone()) else { return };
        let input = self.tokens(turn);
        *self = Self { next: self.next, ..Self::default() };
        let turn = self.insert(rid, None, input);
        self.end(turn);
    }
}
