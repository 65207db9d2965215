//! The tree of cached prefixes: an edge is a run of whole pages.
//!
//! An arena with one owner and no locks. Time is a counter of operations, so
//! eviction order replays. Evictable leaves stand in an ordered set: finding
//! the one to evict is O(log n) however large the pool.
//!
//! Upstream: `sglang/srt/mem_cache/radix_cache.py`.

mod audit;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use slotmap::{Key, SlotMap, new_key_type};
use types::{PageId, StateId, TokenId};

use crate::{
    EvictionPolicy,
    eviction::{EvictionRank, Usage},
};

new_key_type! {
    /// A node of the tree; the prefix it stands for ends with its edge.
    pub struct NodeId;
}

#[derive(Debug)]
struct Node {
    /// Null for the root.
    parent: NodeId,
    /// `pages.len() * page_size` of them.
    tokens: Vec<TokenId>,
    pages: Vec<PageId>,
    /// By the tokens of the child's first page.
    children: BTreeMap<Box<[TokenId]>, NodeId>,
    /// What a model with recurrent layers remembers of the prefix.
    snapshot: Option<StateId>,
    /// Rows about to read the snapshot. It is not given away while positive.
    pins: u32,
    /// Users of this node or of one below. Not evicted while positive.
    lock_ref: u32,
    usage: Usage,
}

/// Who inserts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct User {
    /// Higher is kept longer by [`EvictionPolicy::Priority`].
    pub priority: i64,
    /// Pages of the prefix for which this user was counted before.
    pub num_counted: usize,
}

/// Maps token prefixes to the pages that hold their K/V.
#[derive(Debug)]
pub struct RadixCache {
    page_size: usize,
    policy: EvictionPolicy,
    nodes: SlotMap<NodeId, Node>,
    root: NodeId,
    /// Unlocked nodes without children, the one to evict first.
    evictable_leaves: BTreeSet<(EvictionRank, NodeId)>,
    /// Nodes with a snapshot, least recently used first.
    snapshots: BTreeSet<(u64, NodeId)>,
    /// Snapshots whose node is gone, until somebody takes them.
    freed_states: Vec<StateId>,
    /// Counts operations; stands in for a clock.
    now: u64,
    num_evictable: usize,
    num_protected: usize,
}

impl RadixCache {
    /// An empty tree over pages of `page_size` tokens.
    pub fn new(page_size: usize, policy: EvictionPolicy) -> Self {
        let mut nodes = SlotMap::with_key();
        let root = nodes.insert(Node::new(NodeId::null(), Vec::new(), Vec::new()));
        Self {
            page_size,
            policy,
            nodes,
            root,
            evictable_leaves: BTreeSet::new(),
            snapshots: BTreeSet::new(),
            freed_states: Vec::new(),
            now: 0,
            num_evictable: 0,
            num_protected: 0,
        }
    }

    /// The empty prefix.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// Pages that [`Self::evict`] could free.
    pub fn evictable_size(&self) -> usize {
        self.num_evictable
    }

    /// Pages that locks keep from eviction.
    pub fn protected_size(&self) -> usize {
        self.num_protected
    }

    /// Length in tokens of the longest cached prefix. Leaves no trace in the
    /// eviction order.
    pub fn peek_prefix(&self, tokens: &[TokenId]) -> usize {
        let mut num_pages = 0;
        self.visit_prefix(tokens, |pages, _| num_pages += pages.len());
        num_pages * self.page_size
    }

    /// Visits the pages of the longest cached prefix, edge by edge, each with the snapshot
    /// at its end (none where the prefix ends within the edge). Leaves no trace in the
    /// eviction order.
    pub fn visit_prefix(
        &self,
        tokens: &[TokenId],
        mut visit: impl FnMut(&[PageId], Option<StateId>),
    ) {
        let mut rest = tokens;
        let mut node = self.root;
        while let Some(child) = self.child(node, rest) {
            let num_pages = self.common_pages(child, rest);
            let Node { pages, snapshot, .. } = &self.nodes[child];
            let is_whole = num_pages == pages.len();
            visit(&pages[..num_pages], snapshot.filter(|_| is_whole));
            if !is_whole {
                break;
            }
            rest = &rest[num_pages * self.page_size..];
            node = child;
        }
    }

    /// The nodes that the longest cached prefix runs through, the root's child first, and its
    /// tokens; the last node may be matched in part. Leaves no trace in the eviction order.
    pub fn peek_path(&self, tokens: &[TokenId]) -> (Vec<NodeId>, usize) {
        let mut path = Vec::new();
        let (mut node, mut rest) = (self.root, tokens);
        while let Some(child) = self.child(node, rest) {
            path.push(child);
            let num_pages = self.common_pages(child, rest);
            rest = &rest[num_pages * self.page_size..];
            if num_pages < self.nodes[child].pages.len() {
                break;
            }
            node = child;
        }
        (path, tokens.len() - rest.len())
    }

    /// Where prefixes end on the way to `node`, in pages, deepest first: nodes that do not
    /// simply go on in one other, or have a snapshot. `node` itself ends at `depth`.
    pub(crate) fn ends(&self, node: NodeId, depth: usize) -> impl Iterator<Item = usize> + '_ {
        let up = |&(id, depth): &(NodeId, usize)| {
            let node = &self.nodes[id];
            Some((node.parent, depth - node.pages.len()))
        };
        std::iter::successors(Some((node, depth)), up)
            .take_while(|&(id, _)| id != self.root)
            .filter(|&(id, _)| {
                let node = &self.nodes[id];
                node.children.len() != 1 || node.snapshot.is_some()
            })
            .map(|(_, depth)| depth)
    }

    /// Appends the pages of the longest cached prefix to `pages` and returns
    /// the node where it ends. Splits an edge that matches part-way; marks the
    /// path as used. The pages stay the tree's: lock the node to keep them.
    pub fn match_prefix(&mut self, tokens: &[TokenId], pages: &mut Vec<PageId>) -> NodeId {
        self.walk(tokens, |cached| pages.extend_from_slice(cached))
    }

    /// Gives the pages of `tokens` to the tree and returns the node where they
    /// end. `tokens` are whole pages.
    ///
    /// Where the tree has a page for the same tokens already, that page replaces
    /// the one in `pages`, and the replaced one goes to `duplicates`, still the
    /// caller's. All pages in `pages` are the tree's afterwards. Beyond the first
    /// `user.num_counted` pages, which end where a node does, the user counts as one more.
    pub fn insert(
        &mut self,
        tokens: &[TokenId],
        pages: &mut [PageId],
        user: User,
        duplicates: &mut Vec<PageId>,
    ) -> NodeId {
        assert_eq!(tokens.len(), pages.len() * self.page_size, "only whole pages are cached");
        let mut num_known = 0;
        let node = self.walk(tokens, |cached| {
            for (page, &cached) in pages[num_known..].iter_mut().zip(cached) {
                if *page != cached {
                    duplicates.push(std::mem::replace(page, cached));
                }
            }
            num_known += cached.len();
        });
        let end = if num_known < pages.len() {
            let new_tokens = tokens[num_known * self.page_size..].to_vec();
            self.add_leaf(node, new_tokens, pages[num_known..].to_vec())
        } else {
            node
        };
        self.count_user(end, pages.len(), user);
        end
    }

    /// Keeps `node` and all above it from eviction until [`Self::dec_lock_ref`].
    pub fn inc_lock_ref(&mut self, node: NodeId) {
        let mut id = node;
        while id != self.root {
            let node = &mut self.nodes[id];
            node.lock_ref += 1;
            let (first, num_pages, parent) = (node.lock_ref == 1, node.pages.len(), node.parent);
            if first {
                self.num_evictable -= num_pages;
                self.num_protected += num_pages;
                self.update_leaf(id);
            }
            id = parent;
        }
    }

    /// Undoes one [`Self::inc_lock_ref`] of the same node.
    pub fn dec_lock_ref(&mut self, node: NodeId) {
        let mut id = node;
        while id != self.root {
            let node = &mut self.nodes[id];
            node.lock_ref = node.lock_ref.checked_sub(1).expect("each unlock follows its lock");
            let (last, num_pages, parent) = (node.lock_ref == 0, node.pages.len(), node.parent);
            if last {
                self.num_evictable += num_pages;
                self.num_protected -= num_pages;
                self.update_leaf(id);
            }
            id = parent;
        }
    }

    /// Pages that nobody would lock if each of these nodes, any of them several times, were
    /// unlocked.
    pub fn num_pages_locked_by(&self, nodes: &[NodeId]) -> usize {
        let mut num_locks = BTreeMap::<NodeId, u32>::new();
        for &node in nodes {
            let up = |&id: &NodeId| Some(self.nodes[id].parent);
            let path = std::iter::successors(Some(node), up).take_while(|&id| id != self.root);
            for id in path {
                *num_locks.entry(id).or_default() += 1;
            }
        }
        let freed = num_locks.iter().filter(|&(&id, &count)| self.nodes[id].lock_ref == count);
        freed.map(|(&id, _)| self.nodes[id].pages.len()).sum()
    }

    /// Takes up to `num_pages` pages out of the tree, leaf by leaf as the policy
    /// has it and each from its end, and appends them to `freed`. Returns
    /// how many.
    pub fn evict(&mut self, num_pages: usize, freed: &mut Vec<PageId>) -> usize {
        let mut missing = num_pages;
        while missing > 0 {
            let Some(&(_, leaf)) = self.evictable_leaves.first() else { break };
            let node = &mut self.nodes[leaf];
            let kept = node.pages.len().saturating_sub(missing);
            let taken = node.pages.len() - kept;
            freed.extend(node.pages.drain(kept..).rev());
            self.drop_snapshot(leaf);
            if kept == 0 {
                self.evictable_leaves.pop_first();
                self.remove_leaf(leaf);
            } else {
                self.nodes[leaf].tokens.truncate(kept * self.page_size);
            }
            self.num_evictable -= taken;
            missing -= taken;
        }
        num_pages - missing
    }

    /// Empties the tree; its pages go to `freed`.
    ///
    /// # Panics
    /// If a node is locked.
    pub fn flush(&mut self, freed: &mut Vec<PageId>) {
        assert_eq!(self.num_protected, 0, "flush of a tree in use");
        self.evict(usize::MAX, freed);
    }

    /// Forgets who locked `node` and what is above it.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(crate) fn plant_unlock(&mut self, node: NodeId) {
        while self.nodes[node].lock_ref > 0 {
            self.dec_lock_ref(node);
        }
    }

    /// Visits the pages of each matching edge, splitting the last if it matches
    /// part-way, and returns the node where the match ends.
    fn walk(&mut self, tokens: &[TokenId], mut visit: impl FnMut(&[PageId])) -> NodeId {
        self.now += 1;
        let mut rest = tokens;
        let mut node = self.root;
        while let Some(child) = self.child(node, rest) {
            let num_pages = self.common_pages(child, rest);
            node = if num_pages < self.nodes[child].pages.len() {
                self.split(child, num_pages)
            } else {
                child
            };
            self.touch(node);
            visit(&self.nodes[node].pages);
            rest = &rest[num_pages * self.page_size..];
        }
        node
    }

    fn child(&self, node: NodeId, tokens: &[TokenId]) -> Option<NodeId> {
        self.nodes[node].children.get(tokens.get(..self.page_size)?).copied()
    }

    fn common_pages(&self, node: NodeId, tokens: &[TokenId]) -> usize {
        common_prefix_len(&self.nodes[node].tokens, tokens) / self.page_size
    }

    /// Cuts `id` after `num_pages` pages and returns the new node above the cut.
    /// `id` keeps the end, so whoever locked it still locks all its pages.
    fn split(&mut self, id: NodeId, num_pages: usize) -> NodeId {
        let lower = &mut self.nodes[id];
        let lower_tokens = lower.tokens.split_off(num_pages * self.page_size);
        let lower_pages = lower.pages.split_off(num_pages);
        let lower_key = lower_tokens[..self.page_size].into();
        let upper_tokens = std::mem::replace(&mut lower.tokens, lower_tokens);
        let upper_pages = std::mem::replace(&mut lower.pages, lower_pages);
        let mut upper = Node::new(lower.parent, upper_tokens, upper_pages);
        (upper.lock_ref, upper.usage) = (lower.lock_ref, lower.usage);
        upper.children.insert(lower_key, id);

        let parent = lower.parent;
        let upper_id = self.nodes.insert(upper);
        self.nodes[id].parent = upper_id;
        self.set_child(parent, upper_id);
        upper_id
    }

    fn add_leaf(&mut self, parent: NodeId, tokens: Vec<TokenId>, pages: Vec<PageId>) -> NodeId {
        self.num_evictable += pages.len();
        let mut leaf = Node::new(parent, tokens, pages);
        leaf.usage.last_access = self.now;
        let id = self.nodes.insert(leaf);
        self.set_child(parent, id);
        self.update_leaf(parent);
        self.update_leaf(id);
        id
    }

    fn remove_leaf(&mut self, id: NodeId) {
        let leaf = self.nodes.remove(id).expect("leaves in the set are live");
        self.nodes[leaf.parent].children.remove(&leaf.tokens[..self.page_size]);
        self.update_leaf(leaf.parent);
    }

    fn set_child(&mut self, parent: NodeId, child: NodeId) {
        let key = self.nodes[child].tokens[..self.page_size].into();
        self.nodes[parent].children.insert(key, child);
    }

    fn touch(&mut self, id: NodeId) {
        let usage = Usage { last_access: self.now, ..self.nodes[id].usage };
        self.set_usage(id, usage);
    }

    /// Counts a user of the path to `node`, which is `depth` pages long.
    fn count_user(&mut self, node: NodeId, depth: usize, user: User) {
        let (mut id, mut depth) = (node, depth);
        while id != self.root {
            let Node { usage, pages, parent, .. } = &self.nodes[id];
            let (size, parent) = (pages.len(), *parent);
            let usage = Usage {
                num_hits: usage.num_hits.saturating_add(u32::from(depth > user.num_counted)),
                priority: usage.priority.max(user.priority),
                ..*usage
            };
            self.set_usage(id, usage);
            (id, depth) = (parent, depth - size);
        }
    }

    /// Keeps the ordered sets in order.
    fn set_usage(&mut self, id: NodeId, usage: Usage) {
        let before = std::mem::replace(&mut self.nodes[id].usage, usage);
        if self.evictable_leaves.remove(&(self.policy.rank(&before), id)) {
            self.evictable_leaves.insert((self.policy.rank(&usage), id));
        }
        if before.last_access != usage.last_access
            && self.snapshots.remove(&(before.last_access, id))
        {
            self.snapshots.insert((usage.last_access, id));
        }
    }

    /// Enters `id` in the set of evictable leaves, or takes it out, as its
    /// children and locks now say.
    fn update_leaf(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        let entry = (self.policy.rank(&node.usage), id);
        if id != self.root && node.children.is_empty() && node.lock_ref == 0 {
            self.evictable_leaves.insert(entry);
        } else {
            self.evictable_leaves.remove(&entry);
        }
    }
}

impl Node {
    fn new(parent: NodeId, tokens: Vec<TokenId>, pages: Vec<PageId>) -> Self {
        Self {
            parent,
            tokens,
            pages,
            children: BTreeMap::new(),
            snapshot: None,
            pins: 0,
            lock_ref: 0,
            usage: Usage::NEVER,
        }
    }
}

/// Compares in blocks, which the compiler turns into wide loads; the tail
/// decides token by token.
fn common_prefix_len(a: &[TokenId], b: &[TokenId]) -> usize {
    const BLOCK: usize = 16;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK));
    let start = BLOCK * blocks.take_while(|(a, b)| a == b).count();
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}
