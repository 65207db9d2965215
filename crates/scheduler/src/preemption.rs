//! Priorities against requests that run already.
//!
//! A waiting request that finds no room takes it from running ones whose priority is lower
//! by more than a threshold: those go back to the queue, keep what they generated, and
//! what they wrote stays in the tree while nobody needs the pages.
//!
//! Upstream: `preempt_to_schedule` in `sglang/srt/managers/schedule_policy.py`.

use std::cmp::Reverse;

use crate::{
    Executor, ReqId, RetractionPolicy, ScheduleBatch, Scheduler,
    prefill::{cacheable, expected_new_tokens},
};

impl<E: Executor> Scheduler<E> {
    /// By how much a priority must be lower to be preempted; `None`: nobody is.
    pub(crate) fn preemption_threshold(&self) -> Option<u64> {
        self.limits.queue.priority?.preemption_threshold
    }

    /// Whether the priority of `id` is by so much higher.
    fn may_run_instead_of(&self, id: ReqId, victim: ReqId) -> bool {
        let (rank, victim) = (self.reqs[id].rank, self.reqs[victim].rank);
        let threshold = self.preemption_threshold();
        threshold.is_some_and(|threshold| victim < rank && rank.abs_diff(victim) > threshold)
    }

    /// Whom `id` may preempt now, the one to go first first: lowest priority, then newest.
    /// Those in the batch that is being filled stay, and those that are about to leave.
    fn victims(&self, id: ReqId, batch: &ScheduleBatch) -> Vec<ReqId> {
        let in_batch = |id: ReqId| batch.rows.iter().any(|row| row.req == id);
        let mut victims = self.running.clone();
        victims.retain(|&victim| {
            let stays = self.reqs[victim].num_remaining() > 0 && !in_batch(victim);
            stays && self.may_run_instead_of(id, victim)
        });
        victims.reverse();
        victims.sort_by_key(|&victim| self.reqs[victim].rank);
        victims
    }

    /// Sends one running request back to the queue for the sake of `id`, and takes what it
    /// would have generated off `reserved`. False, and nobody is sent, if all that may be
    /// preempted would not do.
    pub(crate) fn preempt_for(
        &mut self,
        id: ReqId,
        reserved: &mut usize,
        batch: &ScheduleBatch,
    ) -> bool {
        let victims = self.victims(id, batch);
        let Some(&victim) = victims.first() else { return false };
        let growth: usize = victims.iter().map(|&id| self.expected_growth(id)).sum();
        let rows = victims.iter().filter_map(|&id| self.reqs[id].table_row);
        let room = self.cache.num_available_pages() + self.cache.num_pages_freed_by(rows);
        let cached = self.cache.peek_prefix(cacheable(&self.reqs[id]));
        if self.pages_to_admit(id, cached, reserved.saturating_sub(growth)) > room {
            return false;
        }
        *reserved = reserved.saturating_sub(self.expected_growth(victim));
        self.preempt(victim);
        true
    }

    /// A prompt in pieces gives way to a waiting request that may preempt it, and goes on
    /// behind it.
    pub(crate) fn yield_chunked(&mut self) {
        if let Some(chunked) = self.chunked
            && self.waiting.iter().any(|&id| self.may_run_instead_of(id, chunked))
        {
            self.preempt(chunked);
        }
    }

    fn preempt(&mut self, victim: ReqId) {
        self.retract(victim);
        self.totals.preemptions += 1;
    }

    /// Tokens that a running request is expected to generate yet.
    fn expected_growth(&self, id: ReqId) -> usize {
        (expected_new_tokens(&self.reqs[id]) as f64 * self.new_token_ratio.get()) as usize
    }

    /// Of retraction: which priority keeps its pages longest, if priorities count there.
    pub(crate) fn retraction_rank(&self, id: ReqId) -> Reverse<i64> {
        let policy = self.limits.queue.priority.map(|rules| rules.retraction);
        Reverse(match policy {
            Some(RetractionPolicy::Priority) => self.reqs[id].rank,
            _ => 0,
        })
    }
}
