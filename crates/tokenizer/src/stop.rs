//! Stop strings over text that arrives in pieces.
//!
//! Text that might be the beginning of a stop string is held back until that
//! is decided. The match is the one that *ends* first (of several that end at
//! the same byte, the first of the list), because that one does not depend on
//! how the text was cut into pieces.
//!
//! Upstream: `sglang/srt/managers/schedule_batch.py` (`check_finished`) and
//! `detokenizer_manager.py` (`trim_matched_stop`).

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
};

/// Looks for stop strings in streamed text. Cost is linear in the length of
/// the stop strings (once) and of the text, however many stop strings there are.
#[derive(Debug, Clone)]
pub struct StopChecker {
    automaton: Arc<Automaton>,
    no_stop_trim: bool,
    state: u32,
    /// The longest end of the text so far that may still become a stop string.
    held: String,
    matched: Option<usize>,
}

/// What a [`StopChecker`] lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that belongs to the answer whatever comes next.
    pub text: String,
    /// The stop string that was found. Text after it is dropped.
    pub matched: Option<String>,
}

impl StopChecker {
    /// `no_stop_trim` keeps the matched stop string at the end of the text.
    /// Empty stop strings never match.
    pub fn new<S: AsRef<str>>(stops: &[S], no_stop_trim: bool) -> Self {
        Self {
            automaton: Arc::new(Automaton::new(stops)),
            no_stop_trim,
            state: ROOT,
            held: String::new(),
            matched: None,
        }
    }

    /// Takes the next piece of text. After a match every further piece is dropped.
    pub fn push(&mut self, piece: &str) -> StopOutput {
        if self.matched.is_some() {
            return StopOutput::default();
        }
        let seen = self.held.len();
        self.held.push_str(piece);
        for (offset, &byte) in piece.as_bytes().iter().enumerate() {
            self.state = self.automaton.next(self.state, byte);
            if let Some(stop) = self.automaton.nodes[self.state as usize].stop {
                return self.finish(stop as usize, seen + offset + 1);
            }
        }
        // A stop string begins with a whole character, so this cuts between two.
        let depth = self.automaton.nodes[self.state as usize].depth as usize;
        let held = self.held.split_off(self.held.len() - depth);
        StopOutput { text: mem::replace(&mut self.held, held), matched: None }
    }

    /// The end of the text: returns what was held back.
    pub fn flush(&mut self) -> String {
        self.state = ROOT;
        mem::take(&mut self.held)
    }

    /// The stop string that was found, if any.
    pub fn matched(&self) -> Option<&str> {
        self.matched.map(|stop| self.automaton.stops[stop].as_str())
    }

    /// Stop string `stop` ends at byte `end` of the held text.
    fn finish(&mut self, stop: usize, end: usize) -> StopOutput {
        let mut text = mem::take(&mut self.held);
        let stop_text = &self.automaton.stops[stop];
        text.truncate(if self.no_stop_trim { end } else { end - stop_text.len() });
        self.matched = Some(stop);
        StopOutput { text, matched: Some(stop_text.clone()) }
    }
}

const ROOT: u32 = 0;

/// Aho-Corasick over bytes.
#[derive(Debug)]
struct Automaton {
    stops: Vec<String>,
    nodes: Vec<Node>,
    edges: HashMap<(u32, u8), u32>,
}

#[derive(Debug, Default)]
struct Node {
    /// Length in bytes of the prefix this node stands for.
    depth: u32,
    /// Node of the longest proper suffix that is a prefix too.
    fallback: u32,
    /// First of the stop strings that end here.
    stop: Option<u32>,
}

impl Automaton {
    fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let stops: Vec<String> = stops.iter().map(|stop| stop.as_ref().to_owned()).collect();
        let mut automaton = Self { stops, nodes: vec![Node::default()], edges: HashMap::new() };
        automaton.add_prefixes();
        automaton.link_fallbacks();
        automaton
    }

    fn add_prefixes(&mut self) {
        for (index, stop) in self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty()) {
            let mut node = ROOT;
            for &byte in stop.as_bytes() {
                let depth = self.nodes[node as usize].depth + 1;
                node = *self.edges.entry((node, byte)).or_insert_with(|| {
                    self.nodes.push(Node { depth, ..Node::default() });
                    (self.nodes.len() - 1) as u32
                });
            }
            self.nodes[node as usize].stop.get_or_insert(index as u32);
        }
    }

    /// Breadth first: a fallback is shorter than its node, so it is done before it.
    fn link_fallbacks(&mut self) {
        let mut children: Vec<Vec<(u8, u32)>> = Vec::new();
        children.resize_with(self.nodes.len(), Vec::new);
        for (&(parent, byte), &child) in &self.edges {
            children[parent as usize].push((byte, child));
        }
        let mut queue = VecDeque::from([ROOT]);
        while let Some(parent) = queue.pop_front() {
            for &(byte, child) in &children[parent as usize] {
                let fallback = match parent {
                    ROOT => ROOT,
                    _ => self.next(self.nodes[parent as usize].fallback, byte),
                };
                let inherited = self.nodes[fallback as usize].stop;
                let node = &mut self.nodes[child as usize];
                node.fallback = fallback;
                node.stop = match (node.stop, inherited) {
                    (Some(own), Some(other)) => Some(own.min(other)),
                    (own, other) => own.or(other),
                };
                queue.push_back(child);
            }
        }
    }

    fn next(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            if let Some(&next) = self.edges.get(&(node, byte)) {
                return next;
            }
            if node == ROOT {
                return ROOT;
            }
            node = self.nodes[node as usize].fallback;
        }
    }
}

#[cfg(test)]
mod tests;
