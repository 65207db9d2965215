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
        self.running.retain(|&id| self.reqs.contains_key(id));
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
    }

    /// Whether one more may be prefilled.
    pub(crate) fn may_run_one_more(&self) -> bool {
        self.running.len() + usize::from(self.chunked.is_some()) < self.max_running
    }

    /// Nobody's pages would be lost with the cache: no request is live, or, in a pause, none
    /// has pages.
    pub(super) fn may_flush(&self) -> bool {
        let has_no_pages = || self.reqs.values().all(|req| req.table_row.is_none());
        !self.has_live_reqs() || self.is_paused && has_no_pages()
    }
}
