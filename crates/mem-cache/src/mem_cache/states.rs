//! States of recurrent layers: one for each open row, the others snapshots.
//!
//! A state is in exactly one of four hands: free, a row's own, a row's snapshot
//! that is not in the tree yet, the tree. A row always gets its own: snapshots are
//! taken only while enough are left for every row.
//!
//! A row's own state is overwritten as the row goes on; a snapshot is a second copy
//! that a step writes where it passes by. Snapshots are taken:
//!
//! - at every `snapshot_interval` tokens of a prompt,
//! - where the prompt leaves what is cached: others may leave it there too,
//! - at a prompt's last page boundary, for the same prompt again,
//! - at the last page boundary of a completion, for the next turn.
//!
//! Nothing is overwritten that a step in the making reads: of the tree's snapshots a
//! row pins the one it begins with until its step is launched.
//!
//! Upstream: `sglang/srt/mem_cache/mamba_radix_cache.py`, `HybridReqToTokenPool`.

use types::{StateId, TokenId};

use crate::{NodeId, RadixCache};

/// Sizes of the state pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateConfig {
    /// States in the pool; more than there are rows.
    pub num_states: usize,
    /// Tokens of a prompt between two snapshots; whole pages.
    pub snapshot_interval: usize,
}

/// Tokens that a row takes in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Tokens of the sequence before them.
    pub start: usize,
    /// How many.
    pub len: usize,
    /// Tokens of the sequence that are known: the prompt, after a retraction with what
    /// was generated.
    pub total: usize,
    /// One token of a completion.
    pub is_decode: bool,
}

/// How a row's state passes through one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateFlow {
    /// The state before the row's first token; `None`: zeros.
    pub from: Option<StateId>,
    /// Gets the state after its last token. May be `from`.
    pub to: StateId,
}

/// A copy of a row's state, taken inside a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Tokens of the sequence that the state has seen.
    pub seq_len: usize,
    /// Where it goes.
    pub state: StateId,
}

/// A row's hold on states.
#[derive(Debug, Clone)]
struct RowState {
    own: StateId,
    /// `own` holds the state; before, it begins with `begins_at` or with zeros.
    is_begun: bool,
    /// Pinned until the first step is launched.
    begins_at: Option<NodeId>,
    /// Where the prompt leaves what is cached.
    branch: usize,
    /// Not in the tree yet.
    snapshots: Vec<Snapshot>,
}

/// The state pool's bookkeeping.
#[derive(Debug)]
pub(super) struct States {
    config: StateConfig,
    page_size: usize,
    /// There is a tree for them.
    takes_snapshots: bool,
    free: Vec<StateId>,
    rows: Vec<Option<RowState>>,
    /// Snapshots that rows hold.
    num_pending: usize,
}

impl States {
    pub(super) fn new(
        config: StateConfig,
        (num_rows, page_size): (usize, usize),
        takes_snapshots: bool,
    ) -> Self {
        assert!(config.num_states > num_rows, "a state for each row and one more");
        assert!(config.snapshot_interval.is_multiple_of(page_size));
        Self {
            config,
            page_size,
            takes_snapshots,
            free: (0..config.num_states as u32).rev().map(StateId).collect(),
            rows: vec![None; num_rows],
            num_pending: 0,
        }
    }

    /// Gives an open row its state. `begins_at` has the snapshot that it begins with.
    /// False if there is none to be had now.
    pub(super) fn open(
        &mut self,
        row: usize,
        begins_at: Option<NodeId>,
        branch: usize,
        tree: &mut RadixCache,
    ) -> bool {
        if let Some(node) = begins_at {
            tree.pin(node);
        }
        let Some(own) = self.alloc(tree) else {
            begins_at.into_iter().for_each(|node| tree.unpin(node));
            return false;
        };
        let snapshots = Vec::new();
        self.rows[row] = Some(RowState { own, is_begun: false, begins_at, branch, snapshots });
        true
    }

    fn alloc(&mut self, tree: &mut RadixCache) -> Option<StateId> {
        self.free.pop().or_else(|| tree.evict_snapshot())
    }

    /// Plans a step of a row: `prompt` tokens `start..end` of so many, or one token of
    /// a completion. The snapshots that it shall take are appended to `taken`.
    pub(super) fn advance(
        &mut self,
        row: usize,
        piece: Piece,
        tree: &mut RadixCache,
        taken: &mut Vec<Snapshot>,
    ) -> StateFlow {
        let mut state = self.rows[row].take().expect("a step of an open row");
        for seq_len in self.places(&piece, state.branch) {
            let reused = match piece.is_decode {
                true => state.snapshots.pop(),
                false => None,
            };
            let slot = match reused {
                Some(Snapshot { state, .. }) => Some(state),
                None => self.alloc_snapshot(tree),
            };
            if let Some(slot) = slot {
                let snapshot = Snapshot { seq_len, state: slot };
                state.snapshots.push(snapshot);
                taken.push(snapshot);
            }
        }
        let begins = state.begins_at.and_then(|node| tree.snapshot(node));
        let from = if state.is_begun { Some(state.own) } else { begins };
        state.is_begun = true;
        let flow = StateFlow { from, to: state.own };
        self.rows[row] = Some(state);
        flow
    }

    /// Lengths at which the piece takes snapshots, ascending.
    fn places(&self, piece: &Piece, branch: usize) -> Vec<usize> {
        let page_size = self.page_size;
        let (start, end) = (piece.start, piece.start + piece.len);
        if !self.takes_snapshots {
            return Vec::new();
        }
        if piece.is_decode {
            return if end.is_multiple_of(page_size) { vec![end] } else { Vec::new() };
        }
        let last = piece.total.saturating_sub(1) / page_size * page_size;
        let interval = self.config.snapshot_interval;
        let regular = (start / interval + 1..=end / interval).map(|index| index * interval);
        let mut places: Vec<usize> =
            regular.chain([branch, last]).filter(|&place| start < place && place <= end).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// A state that no row needs: each row to come must still get its own, and one
    /// snapshot may be pinned.
    fn alloc_snapshot(&mut self, tree: &mut RadixCache) -> Option<StateId> {
        if self.config.num_states - self.num_pending < self.rows.len() + 2 {
            return None;
        }
        let state = self.alloc(tree)?;
        self.num_pending += 1;
        Some(state)
    }

    /// After the launch of a step with this row: what it began with may go, and what
    /// `tokens` covers goes to the tree, if that is kept.
    pub(super) fn commit(&mut self, row: usize, tokens: &[TokenId], tree: &mut RadixCache) {
        let state = self.rows[row].as_mut().expect("commit of an open row");
        if let Some(node) = state.begins_at.take_if(|_| state.is_begun) {
            tree.unpin(node);
        }
        for snapshot in std::mem::take(&mut state.snapshots) {
            self.num_pending -= 1;
            self.free.extend(match tokens.get(..snapshot.seq_len) {
                Some(tokens) => tree.put_snapshot(tokens, snapshot.state),
                None => Some(snapshot.state),
            });
        }
    }

    /// Ends a row whose snapshots are committed.
    pub(super) fn close(&mut self, row: usize, tree: &mut RadixCache) {
        let state = self.rows[row].take().expect("close of an open row");
        if let Some(node) = state.begins_at {
            tree.unpin(node);
        }
        self.num_pending -= state.snapshots.len();
        self.free.extend(state.snapshots.iter().map(|snapshot| snapshot.state));
        self.free.push(state.own);
    }

    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) fn plant_freed_snapshot(&mut self, tree: &RadixCache) -> bool {
        let cached = tree.states().next();
        self.free.extend(cached);
        cached.is_some()
    }

    pub(super) fn collect_freed(&mut self, tree: &mut RadixCache) {
        self.free.extend(tree.take_freed_states());
    }

    /// Proves that every state is in exactly one hand, and each pin a row's.
    pub(super) fn audit(&self, tree: &RadixCache) -> Result<(), String> {
        let mut owners = vec![None; self.config.num_states];
        let rows = || self.rows.iter().enumerate().filter_map(|(row, s)| Some((row, s.as_ref()?)));
        let free = self.free.iter().map(|&state| (state, "free".to_owned()));
        let cached = tree.states().map(|state| (state, "the tree".to_owned()));
        let own = rows().map(|(row, state)| (state.own, format!("row {row}")));
        let pending = rows().flat_map(|(row, state)| {
            state.snapshots.iter().map(move |s| (s.state, format!("a snapshot of row {row}")))
        });
        for (state, owner) in free.chain(cached).chain(own).chain(pending) {
            match owners.get_mut(state.0 as usize) {
                None => return Err(format!("{owner} holds state {}, which is not there", state.0)),
                Some(Some(other)) => {
                    return Err(format!("state {} is held by {other} and by {owner}", state.0));
                }
                Some(vacant) => *vacant = Some(owner),
            }
        }
        if let Some(state) = owners.iter().position(Option::is_none) {
            return Err(format!("state {state} is lost"));
        }
        let pending = rows().map(|(_, state)| state.snapshots.len()).sum::<usize>();
        if pending != self.num_pending {
            return Err(format!("{pending} snapshots pending, {} counted", self.num_pending));
        }
        tree.audit_pins(rows().filter_map(|(_, state)| state.begins_at))
    }
}
