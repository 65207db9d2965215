//! What must hold of the tree between any two operations.

use slotmap::{Key, SecondaryMap};
use types::{PageId, StateId};

use super::{Node, NodeId, RadixCache};

impl RadixCache {
    /// Checks the tree's shape, its counters and, against `locked` (the node of
    /// each lock that is out), its lock counts. O(tokens in the tree).
    pub fn audit(&self, locked: impl Iterator<Item = NodeId>) -> Result<(), String> {
        for (id, node) in &self.nodes {
            self.audit_node(id, node)?;
        }
        self.audit_locks(locked)?;
        self.audit_counters()
    }

    /// All pages of the tree.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageId> + '_ {
        self.nodes.values().flat_map(|node| node.pages.iter().copied())
    }

    /// Appends the pages of the prefix that ends at `node`.
    pub(crate) fn prefix_pages(&self, node: NodeId) -> Vec<PageId> {
        let mut reversed = Vec::new();
        let mut id = node;
        while id != self.root {
            reversed.extend(self.nodes[id].pages.iter().rev());
            id = self.nodes[id].parent;
        }
        reversed.reverse();
        reversed
    }

    /// All snapshots of the tree.
    pub(crate) fn states(&self) -> impl Iterator<Item = StateId> + '_ {
        self.nodes.values().filter_map(|node| node.snapshot)
    }

    /// Checks the pins against the nodes that rows say they pinned.
    pub(crate) fn audit_pins(&self, pinned: impl Iterator<Item = NodeId>) -> Result<(), String> {
        let mut expected = SecondaryMap::<NodeId, u32>::new();
        for id in pinned {
            if self.nodes.get(id).is_none_or(|node| node.snapshot.is_none()) {
                return Err(format!("{id:?}: pinned, and its snapshot is gone"));
            }
            *expected.entry(id).expect("live node").or_default() += 1;
        }
        let count = |id| expected.get(id).copied().unwrap_or(0);
        match self.nodes.iter().find(|(id, node)| node.pins != count(*id)) {
            Some((id, node)) => Err(format!("{id:?}: {} pins, {} rows", node.pins, count(id))),
            None => Ok(()),
        }
    }

    fn audit_node(&self, id: NodeId, node: &Node) -> Result<(), String> {
        if id == self.root {
            let is_bare = node.parent.is_null() && node.pages.is_empty() && node.lock_ref == 0;
            return is_bare.then_some(()).ok_or_else(|| "the root holds something".to_owned());
        }
        if node.pages.is_empty() || node.tokens.len() != node.pages.len() * self.page_size {
            return Err(format!("{id:?}: {} tokens, {:?}", node.tokens.len(), node.pages));
        }
        let parent =
            self.nodes.get(node.parent).ok_or_else(|| format!("{id:?}: its parent is gone"))?;
        if parent.children.get(&node.tokens[..self.page_size]) != Some(&id) {
            return Err(format!("{id:?}: its parent does not know it"));
        }
        if node.children.values().any(|&child| self.nodes.get(child).map(|c| c.parent) != Some(id))
        {
            return Err(format!("{id:?}: a child does not know it"));
        }
        let is_leaf = node.children.is_empty() && node.lock_ref == 0;
        if self.evictable_leaves.contains(&(self.policy.rank(&node.usage), id)) != is_leaf {
            return Err(format!("{id:?}: wrongly in or out of the evictable leaves"));
        }
        if self.snapshots.contains(&(node.usage.last_access, id)) != node.snapshot.is_some() {
            return Err(format!("{id:?}: its snapshot is wrongly in or out of their order"));
        }
        Ok(())
    }

    fn audit_locks(&self, locked: impl Iterator<Item = NodeId>) -> Result<(), String> {
        let mut expected = SecondaryMap::<NodeId, u32>::new();
        for holder in locked {
            let mut id = holder;
            while id != self.root {
                let node =
                    self.nodes.get(id).ok_or_else(|| format!("{holder:?}: locked but gone"))?;
                *expected.entry(id).expect("live node").or_default() += 1;
                id = node.parent;
            }
        }
        for (id, node) in &self.nodes {
            let holders = expected.get(id).copied().unwrap_or(0);
            if node.lock_ref != holders {
                return Err(format!("{id:?}: lock_ref {}, {holders} holders", node.lock_ref));
            }
        }
        Ok(())
    }

    fn audit_counters(&self) -> Result<(), String> {
        let (mut evictable, mut protected, mut num_leaves) = (0, 0, 0);
        for (id, node) in &self.nodes {
            let size = if node.lock_ref == 0 { &mut evictable } else { &mut protected };
            *size += node.pages.len();
            num_leaves +=
                usize::from(id != self.root && node.children.is_empty() && node.lock_ref == 0);
        }
        let counted = (evictable, protected, num_leaves);
        let kept = (self.num_evictable, self.num_protected, self.evictable_leaves.len());
        if counted != kept {
            return Err(format!("(evictable, protected, leaves): {counted:?} in fact, {kept:?}"));
        }
        Ok(())
    }
}
