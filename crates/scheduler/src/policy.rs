//! Who is next: the order of admission.
//!
//! Upstream: `sglang/srt/managers/schedule_policy.py`. Unlike there, requests
//! are held back under every policy, not only the cache-aware ones: pages enter
//! the tree when a batch is launched, so waiting costs a single step and saves
//! `n - 1` prefills of a prompt that is sent `n` times. Priorities, too, come before
//! every policy, not only before arrival and output length.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use mem_cache::NodeId;
use types::{SplitMix64, TokenId};

use crate::{Executor, ReqId, SchedulePolicy, Scheduler, prefill::cacheable};

/// Above this many waiting requests, matching them all costs more than it saves.
const MAX_MATCHED: usize = 128;
/// Requests that share this many tokens wait for the first of them.
const IN_BATCH_SHARE_TOKENS: usize = 32;

impl<E: Executor> Scheduler<E> {
    /// The waiting requests in the order in which to try them. Those with a token in flight
    /// are not ready: nobody knows yet what is to be prefilled.
    pub(crate) fn admission_order(&mut self) -> Vec<ReqId> {
        let is_ready = |id: &ReqId| self.reqs[*id].num_pending == 0;
        let mut order: Vec<_> = self.waiting.iter().copied().filter(is_ready).collect();
        // Every sort here is stable: arrival decides between equals.
        match self.active_policy(order.len()) {
            SchedulePolicy::Fcfs => {}
            SchedulePolicy::Lpm => order.sort_by_cached_key(|&id| Reverse(self.cached_len(id))),
            SchedulePolicy::DfsWeight => self.sort_by_dfs_weight(&mut order),
            SchedulePolicy::Hrrn => order.sort_by_cached_key(|&id| Reverse(self.waiting_ratio(id))),
            SchedulePolicy::ShortestPrefillFirst => match order.len() > MAX_MATCHED {
                true => order.sort_by_key(|&id| self.reqs[id].tokens.len()),
                false => order.sort_by_cached_key(|&id| self.uncached_len(id)),
            },
            SchedulePolicy::Lof => order.sort_by_key(|&id| Reverse(self.reqs[id].max_new_tokens)),
            SchedulePolicy::Random => shuffle(&mut self.rng, &mut order),
        }
        if self.limits.queue.priority.is_some() {
            order.sort_by_key(|&id| Reverse(self.reqs[id].rank));
        }
        order
    }

    fn active_policy(&self, num_waiting: usize) -> SchedulePolicy {
        let policy = self.limits.queue.policy;
        let needs_cache = matches!(
            policy,
            SchedulePolicy::Lpm | SchedulePolicy::DfsWeight | SchedulePolicy::Hrrn
        );
        if needs_cache && (num_waiting > MAX_MATCHED || self.limits.disable_radix_cache) {
            return SchedulePolicy::Fcfs;
        }
        policy
    }

    /// Tokens of a waiting request that need no prefill.
    fn cached_len(&self, id: ReqId) -> usize {
        self.cache.peek_prefix(cacheable(&self.reqs[id]))
    }

    fn uncached_len(&self, id: ReqId) -> usize {
        self.reqs[id].tokens.len() - self.cached_len(id)
    }

    /// Tokens prefilled since its arrival over its own, in units of 2^-20: a whole number
    /// orders the same everywhere.
    fn waiting_ratio(&self, id: ReqId) -> u128 {
        let waited = self.totals.prefilled_tokens - self.reqs[id].arrived_after;
        (u128::from(waited) << 20) / self.uncached_len(id).max(1) as u128
    }

    /// Requests whose prefixes end deeper in a branch go before those that end above them,
    /// and before both go those of a heavier branch beside it.
    fn sort_by_dfs_weight(&self, order: &mut [ReqId]) {
        let path = |id: &ReqId| self.cache.peek_path(cacheable(&self.reqs[*id]));
        let paths: Vec<(Vec<NodeId>, usize)> = order.iter().map(path).collect();
        // How many waiting requests a branch has, and the first of them.
        let mut branches = BTreeMap::<NodeId, (usize, usize)>::new();
        for (index, (path, _)) in paths.iter().enumerate() {
            for &node in path {
                branches.entry(node).or_insert((0, index)).0 += 1;
            }
        }
        // Lighter than every branch: a path's end comes after all that go on.
        let end = (Reverse(0), usize::MAX);
        let key = |(path, depth): &(Vec<NodeId>, usize)| {
            let steps = path.iter().map(|node| (Reverse(branches[node].0), branches[node].1));
            (steps.chain([end]).collect::<Vec<_>>(), Reverse(*depth))
        };
        let mut keyed: Vec<_> = paths.iter().map(key).zip(order.iter().copied()).collect();
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        for (place, (_, id)) in order.iter_mut().zip(keyed) {
            *place = id;
        }
    }
}

/// Fisher and Yates. The remainder's bias is below 2^-32 for any queue.
fn shuffle<T>(rng: &mut SplitMix64, items: &mut [T]) {
    for end in (1..items.len()).rev() {
        items.swap(end, (rng.next_u64() % (end as u64 + 1)) as usize);
    }
}

/// The first tokens of the requests already in a batch.
#[derive(Debug, Default)]
pub(crate) struct InBatchPrefixes {
    heads: BTreeSet<Vec<TokenId>>,
}

impl InBatchPrefixes {
    /// Whether a request with `cached` cached tokens should rather run after
    /// one that is in the batch. Sharing less than a page saves nothing; with as
    /// much cached as is known to be shared, waiting would not end: those behind
    /// would wait in turn.
    pub(crate) fn holds_back(&self, tokens: &[TokenId], cached: usize, page_size: usize) -> bool {
        let share = IN_BATCH_SHARE_TOKENS.max(page_size);
        // The last token is never taken from the cache.
        tokens.len() > share && cached < share && self.heads.contains(&tokens[..share])
    }

    /// Notes a request that is now in the batch.
    pub(crate) fn insert(&mut self, tokens: &[TokenId], page_size: usize) {
        if let Some(head) = tokens.get(..IN_BATCH_SHARE_TOKENS.max(page_size)) {
            self.heads.insert(head.to_vec());
        }
    }
}
