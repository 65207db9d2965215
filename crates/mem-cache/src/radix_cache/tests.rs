//! The tree against a map from every cached whole-page prefix to its page.

use std::collections::BTreeMap;

use proptest::prelude::*;
use types::{PageId, TokenId};

use super::{NodeId, RadixCache, User};
use crate::{EvictionPolicy, PageAllocator};

/// The same promises, kept the slow way.
struct Toy {
    page_size: usize,
    policy: EvictionPolicy,
    entries: BTreeMap<Vec<TokenId>, Entry>,
    now: u64,
}

struct Entry {
    page: PageId,
    lock_ref: u32,
    last_access: u64,
    num_hits: u32,
    priority: i64,
}

impl Toy {
    fn prefixes<'a>(&self, tokens: &'a [TokenId]) -> impl Iterator<Item = &'a [TokenId]> + use<'a> {
        let page_size = self.page_size;
        (1..=tokens.len() / page_size).map(move |n| &tokens[..n * page_size])
    }

    fn matched(&mut self, tokens: &[TokenId], touch: bool) -> Vec<PageId> {
        self.now += u64::from(touch);
        let mut pages = Vec::new();
        for prefix in self.prefixes(tokens) {
            let Some(entry) = self.entries.get_mut(prefix) else { break };
            if touch {
                entry.last_access = self.now;
            }
            pages.push(entry.page);
        }
        pages
    }

    fn insert(&mut self, tokens: &[TokenId], pages: &[PageId], user: User) -> Vec<PageId> {
        let known = self.matched(tokens, true).len();
        for (index, (prefix, &page)) in self.prefixes(tokens).zip(pages).enumerate() {
            let (last_access, priority) = (self.now, user.priority);
            let fresh = Entry { page, lock_ref: 0, last_access, num_hits: 0, priority };
            let entry = self.entries.entry(prefix.to_vec()).or_insert(fresh);
            entry.num_hits += u32::from(index >= user.num_counted);
            entry.priority = entry.priority.max(user.priority);
        }
        pages[..known].to_vec()
    }

    fn lock(&mut self, tokens: &[TokenId], by: i32) {
        for prefix in self.prefixes(tokens) {
            let entry = self.entries.get_mut(prefix).expect("locked prefixes are cached");
            entry.lock_ref = entry.lock_ref.checked_add_signed(by).unwrap();
        }
    }

    fn rank(&self, entry: &Entry) -> (i64, u64) {
        let class = match self.policy {
            EvictionPolicy::Lru => 0,
            EvictionPolicy::Lfu => entry.num_hits.into(),
            EvictionPolicy::Slru { protected_threshold } => {
                if entry.num_hits < protected_threshold { 0 } else { 1 }
            }
            EvictionPolicy::Priority => entry.priority,
        };
        (class, entry.last_access)
    }

    /// Page by page: the first of the unlocked prefixes that none extends.
    fn evict(&mut self, num_pages: usize) -> Vec<PageId> {
        let mut freed = Vec::new();
        while freed.len() < num_pages {
            let is_leaf = |key: &Vec<TokenId>| {
                !self.entries.keys().any(|k| k.len() > key.len() && k.starts_with(key))
            };
            let unlocked = self.entries.iter().filter(|(k, e)| e.lock_ref == 0 && is_leaf(k));
            let Some((key, _)) = unlocked.min_by_key(|(_, e)| self.rank(e)) else { break };
            let key = key.clone();
            freed.extend(self.entries.remove(&key).map(|entry| entry.page));
        }
        freed
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<TokenId>, i64),
    /// Insert what goes on from a locked prefix, by the user who has it.
    Extend(usize, Vec<TokenId>, i64),
    /// Match, and lock if told so.
    Match(Vec<TokenId>, bool),
    /// The lock at this index, modulo how many are out.
    Unlock(usize),
    Evict(usize),
}

fn policies() -> impl Strategy<Value = EvictionPolicy> {
    prop_oneof![
        Just(EvictionPolicy::Lru),
        Just(EvictionPolicy::Lfu),
        (1..4u32).prop_map(|protected_threshold| EvictionPolicy::Slru { protected_threshold }),
        Just(EvictionPolicy::Priority),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Two letters make shared prefixes and splits the rule.
    let tokens = || prop::collection::vec(0..2u32, 0..14);
    let op = prop_oneof![
        4 => (tokens(), 0..3i64).prop_map(|(tokens, priority)| Op::Insert(tokens, priority)),
        1 => (any::<usize>(), tokens(), 0..3i64)
            .prop_map(|(lock, tokens, priority)| Op::Extend(lock, tokens, priority)),
        3 => (tokens(), any::<bool>()).prop_map(|(tokens, lock)| Op::Match(tokens, lock)),
        2 => any::<usize>().prop_map(Op::Unlock),
        2 => (0..6usize).prop_map(Op::Evict),
    ];
    prop::collection::vec(op, 1..60)
}

/// The tree, the toy and the locks that are out, moving together.
struct Pair {
    tree: RadixCache,
    toy: Toy,
    allocator: PageAllocator,
    locks: Vec<(NodeId, Vec<TokenId>)>,
}

impl Pair {
    fn insert(&mut self, mut tokens: Vec<TokenId>, user: User) {
        let num_pages = tokens.len() / self.toy.page_size;
        tokens.truncate(num_pages * self.toy.page_size);
        let mut pages: Vec<_> = (0..num_pages).map(|_| self.allocator.alloc().unwrap()).collect();
        let expected = self.toy.insert(&tokens, &pages, user);
        let mut duplicates = Vec::new();
        self.tree.insert(&tokens, &mut pages, user, &mut duplicates);
        assert_eq!(duplicates, expected);
        assert_eq!(pages, self.toy.matched(&tokens, false));
        duplicates.into_iter().for_each(|page| self.allocator.free(page));
    }

    fn apply(&mut self, op: Op) {
        let page_size = self.toy.page_size;
        match op {
            Op::Insert(tokens, priority) => self.insert(tokens, User { priority, num_counted: 0 }),
            Op::Extend(..) if self.locks.is_empty() => {}
            Op::Extend(lock, tokens, priority) => {
                let (_, mut prefix) = self.locks[lock % self.locks.len()].clone();
                let num_counted = prefix.len() / page_size;
                prefix.extend(tokens);
                self.insert(prefix, User { priority, num_counted });
            }
            Op::Match(tokens, lock) => {
                let expected = self.toy.matched(&tokens, true);
                assert_eq!(self.tree.peek_prefix(&tokens), expected.len() * page_size);
                let mut pages = Vec::new();
                let node = self.tree.match_prefix(&tokens, &mut pages);
                assert_eq!(pages, expected);
                if lock {
                    let matched = tokens[..pages.len() * page_size].to_vec();
                    self.tree.inc_lock_ref(node);
                    self.toy.lock(&matched, 1);
                    self.locks.push((node, matched));
                }
            }
            Op::Unlock(_) if self.locks.is_empty() => {}
            Op::Unlock(index) => {
                let (node, tokens) = self.locks.swap_remove(index % self.locks.len());
                self.tree.dec_lock_ref(node);
                self.toy.lock(&tokens, -1);
            }
            Op::Evict(num_pages) => {
                let mut freed = Vec::new();
                let num_freed = self.tree.evict(num_pages, &mut freed);
                assert_eq!(num_freed, freed.len());
                assert_eq!(freed, self.toy.evict(num_pages));
                freed.into_iter().for_each(|page| self.allocator.free(page));
            }
        }
        let locked = self.toy.entries.values().filter(|entry| entry.lock_ref > 0).count();
        assert_eq!(self.tree.protected_size(), locked);
        assert_eq!(self.tree.evictable_size(), self.toy.entries.len() - locked);
        assert_eq!(self.tree.audit(self.locks.iter().map(|&(node, _)| node)), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_tree_agrees_with_the_toy(
        log_page_size in 0..3u32,
        policy in policies(),
        ops in ops(),
    ) {
        let page_size = 1 << log_page_size;
        let mut pair = Pair {
            tree: RadixCache::new(page_size, policy),
            toy: Toy { page_size, policy, entries: BTreeMap::new(), now: 0 },
            allocator: PageAllocator::new(60 * 60),
            locks: Vec::new(),
        };
        for op in ops {
            pair.apply(op);
        }
        for (node, _) in std::mem::take(&mut pair.locks) {
            pair.tree.dec_lock_ref(node);
        }
        let mut freed = Vec::new();
        pair.tree.flush(&mut freed);
        prop_assert_eq!(freed.len(), pair.toy.entries.len());
        prop_assert_eq!(pair.tree.peek_prefix(&[0, 0, 0, 0]), 0);
        prop_assert_eq!(pair.tree.audit(std::iter::empty()), Ok(()));
    }
}

#[test]
fn a_split_keeps_both_ends_and_their_locks() {
    let mut tree = RadixCache::new(2, EvictionPolicy::Lru);
    let mut pages = [PageId(0), PageId(1), PageId(2)];
    let deep = tree.insert(&[1, 2, 3, 4, 5, 6], &mut pages, User::default(), &mut Vec::new());
    tree.inc_lock_ref(deep);
    let mut matched = Vec::new();
    // The match ends inside the second page, so after the first.
    let upper = tree.match_prefix(&[1, 2, 3, 9], &mut matched);
    assert_eq!(matched, [PageId(0)]);
    assert_ne!(upper, deep);
    assert_eq!((tree.evictable_size(), tree.protected_size()), (0, 3));
    tree.dec_lock_ref(deep);
    let mut freed = Vec::new();
    assert_eq!(tree.evict(2, &mut freed), 2);
    assert_eq!(freed, [PageId(2), PageId(1)]);
    assert_eq!(tree.peek_prefix(&[1, 2, 3, 4, 5, 6]), 2);
    assert_eq!(tree.audit(std::iter::empty()), Ok(()));
}

#[test]
fn pages_are_free_once_all_their_locks_are_counted() {
    let mut tree = RadixCache::new(1, EvictionPolicy::Lru);
    let mut insert = |tokens: &[TokenId]| {
        let mut pages: Vec<_> = tokens.iter().map(|&token| PageId(token)).collect();
        let node = tree.insert(tokens, &mut pages, User::default(), &mut Vec::new());
        tree.inc_lock_ref(node);
        node
    };
    let (a, b, c) = (insert(&[1, 2, 3, 4]), insert(&[1, 2, 5]), insert(&[1, 6]));
    for (nodes, expected) in
        [(&[][..], 0), (&[a], 2), (&[b], 1), (&[a, b], 4), (&[a, c], 3), (&[a, b, c], 6)]
    {
        assert_eq!(tree.num_pages_locked_by(nodes), expected, "{nodes:?}");
    }
    tree.inc_lock_ref(a);
    assert_eq!(tree.num_pages_locked_by(&[a, b, c]), 2, "the second lock stays");
    assert_eq!(tree.num_pages_locked_by(&[a, a, b, c]), 6);
}

/// Three prefixes: used early and often, by a high priority, late.
#[test]
fn each_policy_evicts_another_first() {
    for (policy, expected) in [
        (EvictionPolicy::Lru, [0, 1, 2]),
        (EvictionPolicy::Lfu, [1, 2, 0]),
        (EvictionPolicy::Slru { protected_threshold: 2 }, [1, 2, 0]),
        (EvictionPolicy::Slru { protected_threshold: 4 }, [0, 1, 2]),
        (EvictionPolicy::Priority, [0, 2, 1]),
    ] {
        let mut tree = RadixCache::new(1, policy);
        let mut insert = |page: u32, priority| {
            let user = User { priority, num_counted: 0 };
            tree.insert(&[page], &mut [PageId(page)], user, &mut Vec::new());
        };
        for (page, priority) in [(0, 0), (0, 1), (0, 0), (1, 5), (2, 1)] {
            insert(page, priority);
        }
        let mut freed = Vec::new();
        tree.evict(3, &mut freed);
        assert_eq!(freed, expected.map(PageId), "{policy:?}");
    }
}

#[test]
#[should_panic(expected = "flush of a tree in use")]
fn a_locked_tree_is_not_flushed() {
    let mut tree = RadixCache::new(1, EvictionPolicy::Lru);
    let node = tree.insert(&[1], &mut [PageId(0)], User::default(), &mut Vec::new());
    tree.inc_lock_ref(node);
    tree.flush(&mut Vec::new());
}
