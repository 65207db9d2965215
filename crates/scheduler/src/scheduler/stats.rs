//! What the scheduler reports and proves about itself.

use types::SchedulerStats;

use crate::{Executor, Scheduler, req::ReqState};

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) retractions: u64,
    /// Retractions for the sake of a higher priority.
    pub(crate) preemptions: u64,
    pub(crate) retracted_input_tokens: u64,
    pub(crate) retracted_output_tokens: u64,
    pub(crate) aborted_reqs: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) generation_tokens: u64,
    /// Prefilled for real, whoever for.
    pub(crate) prefilled_tokens: u64,
}

impl<E: Executor> Scheduler<E> {
    /// Gauges and counters after the last step. O(1).
    pub fn stats(&self) -> SchedulerStats {
        let (cache, totals) = (&self.cache, &self.totals);
        let page_size = cache.page_size();
        let (free, evictable, protected) =
            (cache.num_free_pages(), cache.evictable_size(), cache.protected_size());
        SchedulerStats {
            num_running_reqs: self.running.len(),
            num_waiting_reqs: self.waiting.len() + usize::from(self.chunked.is_some()),
            max_total_num_tokens: cache.num_pages() * page_size,
            num_free_tokens: free * page_size,
            num_evictable_tokens: evictable * page_size,
            num_protected_tokens: protected * page_size,
            num_private_tokens: (cache.num_pages() - free - evictable - protected) * page_size,
            max_total_num_tokens_swa: cache.num_window_pages() * page_size,
            num_free_tokens_swa: cache.num_free_window_pages() * page_size,
            num_evictable_tokens_swa: cache.num_evictable_window_pages() * page_size,
            num_retractions: totals.retractions,
            num_preemptions: totals.preemptions,
            retracted_input_tokens: totals.retracted_input_tokens,
            retracted_output_tokens: totals.retracted_output_tokens,
            num_aborted_reqs: totals.aborted_reqs,
            prompt_tokens: totals.prompt_tokens,
            cached_tokens: totals.cached_tokens,
            prefilled_tokens: totals.prefilled_tokens,
            generation_tokens: totals.generation_tokens,
            evicted_tokens: cache.num_evicted_pages() * page_size as u64,
            new_token_ratio: self.new_token_ratio.get(),
        }
    }

    /// Proves the bookkeeping between two steps: each page in one hand, each
    /// request in one queue, states and pages in line. O(pool): for tests.
    pub fn audit(&self) -> Result<(), String> {
        self.cache.audit()?;
        let mut queued = 0;
        let waiting = self.waiting.iter().map(|&id| (id, ReqState::Waiting));
        let chunked = self.chunked.iter().map(|&id| (id, ReqState::Chunked));
        let running = self.running.iter().map(|&id| (id, ReqState::Running));
        for (id, queue) in waiting.chain(chunked).chain(running) {
            let req = self.reqs.get(id).ok_or_else(|| format!("{queue:?}: a dead request"))?;
            let rid = &req.rid;
            if req.state() != queue {
                return Err(format!("{rid}: queued as {queue:?}, but {:?}", req.state()));
            }
            if req.table_row.is_some() != (queue != ReqState::Waiting) {
                return Err(format!("{rid}: {queue:?} with row {:?}", req.table_row));
            }
            let in_line = match queue {
                ReqState::Waiting => req.kv_len == 0,
                ReqState::Chunked => req.kv_len < req.tokens.len() && req.num_pending == 0,
                // `max_new_tokens` 0 never samples, so nothing is pending.
                _ if req.max_new_tokens == 0 => req.kv_len == req.tokens.len(),
                _ => req.kv_len + 1 == req.tokens.len() + req.num_pending,
            };
            if !in_line || req.num_pending > 1 {
                let (len, pending) = (req.tokens.len(), req.num_pending);
                return Err(format!("{rid}: {queue:?}, {}/{len}+{pending} written", req.kv_len));
            }
            queued += 1;
        }
        if queued != self.reqs.len() {
            return Err(format!("{queued} requests queued, {} live", self.reqs.len()));
        }
        Ok(())
    }
}
