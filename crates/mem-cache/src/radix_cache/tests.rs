//! The tree against a map from every cached whole-page prefix to its page.

use std::collections::BTreeMap;

use proptest::prelude::*;
use types::{PageId, TokenId};

use super::{NodeId, RadixCache};
use crate::PageAllocator;

/// The same promises, kept the slow way.
#[derive(Default)]
struct Toy {
    page_size: usize,
    entries: BTreeMap<Vec<TokenId>, Entry>,
    now: u64,
}

struct Entry {
    page: PageId,
    lock_ref: u32,
    last_access: u64,
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

    fn insert(&mut self, tokens: &[TokenId], pages: &[PageId]) -> Vec<PageId> {
        let known = self.matched(tokens, true).len();
        for (prefix, &page) in self.prefixes(tokens).zip(pages).skip(known) {
            let entry = Entry { page, lock_ref: 0, last_access: self.now };
            self.entries.insert(prefix.to_vec(), entry);
        }
        pages[..known].to_vec()
    }

    fn lock(&mut self, tokens: &[TokenId], by: i32) {
        for prefix in self.prefixes(tokens) {
            let entry = self.entries.get_mut(prefix).expect("locked prefixes are cached");
            entry.lock_ref = entry.lock_ref.checked_add_signed(by).unwrap();
        }
    }

    /// Page by page: the least recently used unlocked prefix that none extends.
    fn evict(&mut self, num_pages: usize) -> Vec<PageId> {
        let mut freed = Vec::new();
        while freed.len() < num_pages {
            let is_leaf = |key: &Vec<TokenId>| {
                !self.entries.keys().any(|k| k.len() > key.len() && k.starts_with(key))
            };
            let unlocked = self.entries.iter().filter(|(k, e)| e.lock_ref == 0 && is_leaf(k));
            let Some((key, _)) = unlocked.min_by_key(|(_, e)| e.last_access) else { break };
            let key = key.clone();
            freed.extend(self.entries.remove(&key).map(|entry| entry.page));
        }
        freed
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<TokenId>),
    /// Match, and lock if told so.
    Match(Vec<TokenId>, bool),
    /// The lock at this index, modulo how many are out.
    Unlock(usize),
    Evict(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Two letters make shared prefixes and splits the rule.
    let tokens = || prop::collection::vec(0..2u32, 0..14);
    let op = prop_oneof![
        4 => tokens().prop_map(Op::Insert),
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
    fn apply(&mut self, op: Op) {
        let page_size = self.toy.page_size;
        match op {
            Op::Insert(mut tokens) => {
                tokens.truncate(tokens.len() / page_size * page_size);
                let mut pages: Vec<_> = (0..tokens.len() / page_size)
                    .map(|_| self.allocator.alloc().unwrap())
                    .collect();
                let expected = self.toy.insert(&tokens, &pages);
                let mut duplicates = Vec::new();
                self.tree.insert(&tokens, &mut pages, &mut duplicates);
                assert_eq!(duplicates, expected);
                assert_eq!(pages, self.toy.matched(&tokens, false));
                duplicates.into_iter().for_each(|page| self.allocator.free(page));
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
    fn the_tree_agrees_with_the_toy(log_page_size in 0..3u32, ops in ops()) {
        let page_size = 1 << log_page_size;
        let mut pair = Pair {
            tree: RadixCache::new(page_size),
            toy: Toy { page_size, ..Default::default() },
            allocator: PageAllocator::new(60 * 14),
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
    let mut tree = RadixCache::new(2);
    let mut pages = [PageId(0), PageId(1), PageId(2)];
    let deep = tree.insert(&[1, 2, 3, 4, 5, 6], &mut pages, &mut Vec::new());
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
#[should_panic(expected = "flush of a tree in use")]
fn a_locked_tree_is_not_flushed() {
    let mut tree = RadixCache::new(1);
    let node = tree.insert(&[1], &mut [PageId(0)], &mut Vec::new());
    tree.inc_lock_ref(node);
    tree.flush(&mut Vec::new());
}
