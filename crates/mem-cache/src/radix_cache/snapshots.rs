//! Recurrent states at the ends of nodes.
//!
//! K/V of a prefix serves every longer and every shorter prefix; a recurrent state
//! serves the very prefix it was taken after. So a model with recurrent layers may
//! begin only where a node has a snapshot, and the pages beyond tell no more than
//! where the next snapshot would pay.
//!
//! Upstream: `sglang/srt/mem_cache/mamba_radix_cache.py`.

use types::{StateId, TokenId};

use super::{NodeId, RadixCache};

impl RadixCache {
    /// The snapshot at the end of `node`.
    pub fn snapshot(&self, node: NodeId) -> Option<StateId> {
        self.nodes[node].snapshot
    }

    /// Gives the state after `tokens`, whole pages that are cached, to the tree.
    /// Returns it if the tree has one already, or lacks the pages.
    pub fn put_snapshot(&mut self, tokens: &[TokenId], state: StateId) -> Option<StateId> {
        let mut num_pages = 0;
        let node = self.walk(tokens, |pages| num_pages += pages.len());
        let is_whole = num_pages * self.page_size == tokens.len();
        let now = self.now;
        let entry = &mut self.nodes[node];
        if !is_whole || node == self.root || entry.snapshot.is_some() {
            return Some(state);
        }
        entry.snapshot = Some(state);
        self.snapshots.insert((now, node));
        None
    }

    /// Keeps the snapshot of `node` until [`Self::unpin`].
    pub fn pin(&mut self, node: NodeId) {
        self.nodes[node].pins += 1;
    }

    /// Undoes one [`Self::pin`].
    pub fn unpin(&mut self, node: NodeId) {
        let pins = &mut self.nodes[node].pins;
        *pins = pins.checked_sub(1).expect("each unpin follows its pin");
    }

    /// Takes the least recently used snapshot out of the tree that nobody is about to
    /// read. Its pages stay.
    pub fn evict_snapshot(&mut self) -> Option<StateId> {
        let unpinned = |&&(_, node): &&(u64, NodeId)| self.nodes[node].pins == 0;
        let &(_, node) = self.snapshots.iter().find(unpinned)?;
        self.drop_snapshot(node);
        self.freed_states.pop()
    }

    /// Snapshots whose nodes went since the last call.
    pub fn take_freed_states(&mut self) -> impl Iterator<Item = StateId> + '_ {
        self.freed_states.drain(..)
    }

    pub(super) fn drop_snapshot(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        if let Some(state) = node.snapshot.take() {
            self.snapshots.remove(&(node.usage.last_access, id));
            self.freed_states.push(state);
        }
    }
}
