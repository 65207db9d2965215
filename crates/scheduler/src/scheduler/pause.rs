//! Standing still: no batch is launched, what is in flight is read, messages are taken.
//!
//! Upstream: `pause_generation` in `sglang/srt/managers/scheduler.py`.

use crate::{Executor, Scheduler};

impl<E: Executor> Scheduler<E> {
    /// From the next step on no batch is launched; that step reads the last one. Requests that
    /// are running keep their pages, and steps report themselves idle.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Whether a pause lasts.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Sends every request that has pages back to the queue without them, the oldest first. For
    /// a pause whose first step is over.
    ///
    /// # Panics
    /// If a batch may still be in flight.
    pub fn retract_all(&mut self) {
        assert!(self.is_paused && self.in_flight.is_none(), "nothing runs in a pause");
        for id in self.chunked.into_iter().chain(self.running.clone().into_iter().rev()) {
            self.retract(id);
        }
    }

    /// Requests that wait or run.
    pub fn num_live_reqs(&self) -> usize {
        self.reqs.len()
    }

    /// Runs at most so many requests at once, if those are fewer than the limits allow. Those
    /// that run already go on.
    pub fn limit_running(&mut self, max_running_requests: usize) {
        self.max_running = max_running_requests.max(1);
        self.admission_blocked = false;
    }

    /// While memory is short, no request is prefilled beside others: those that run go on, and
    /// then one at a time.
    pub fn hold_back(&mut self, is_held_back: bool) {
        self.is_held_back = is_held_back;
        self.admission_blocked = false;
    }

    /// Whether one more may be prefilled.
    pub(crate) fn may_run_one_more(&self) -> bool {
        let most = if self.is_held_back { 1 } else { self.max_running };
        self.running.len() + usize::from(self.chunked.is_some()) < most
    }

    /// Empties the radix tree, if [`Self::may_flush`].
    pub fn flush_cache(&mut self) -> bool {
        let ok = self.may_flush();
        if ok {
            self.cache.flush();
        }
        ok
    }

    /// Nobody's pages would be lost with the cache: no request is live, or, in a pause, none
    /// has pages.
    pub fn may_flush(&self) -> bool {
        let has_no_pages = || self.reqs.values().all(|req| req.table_row.is_none());
        !self.has_live_reqs() || self.is_paused && has_no_pages()
    }
}
