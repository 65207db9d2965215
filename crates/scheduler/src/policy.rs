//! Who is next: the order of admission.
//!
//! Upstream: `sglang/srt/managers/schedule_policy.py`. Unlike there, requests
//! are held back under every policy, not only the cache-aware ones: pages enter
//! the tree when a batch is launched, so waiting costs a single step and saves
//! `n - 1` prefills of a prompt that is sent `n` times.

use std::collections::BTreeSet;

use types::TokenId;

use crate::{Executor, ReqId, SchedulePolicy, Scheduler};

/// Above this many waiting requests, matching them all costs more than it saves.
const LPM_MAX_WAITING: usize = 128;
/// Requests that share this many tokens wait for the first of them.
const IN_BATCH_SHARE_TOKENS: usize = 32;

impl<E: Executor> Scheduler<E> {
    /// The waiting requests in the order in which to try them.
    pub(crate) fn admission_order(&self) -> Vec<ReqId> {
        let mut order: Vec<_> = self.waiting.iter().copied().collect();
        let by_prefix = self.limits.schedule_policy == SchedulePolicy::Lpm
            && !self.limits.disable_radix_cache
            && order.len() <= LPM_MAX_WAITING;
        if by_prefix {
            // Stable: arrival decides between equals.
            order.sort_by_cached_key(|&id| {
                std::cmp::Reverse(self.cache.peek_prefix(&self.reqs[id].tokens))
            });
        }
        order
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
