//! Into the waiting queue, and out of it again without having run.
//!
//! Upstream: `_add_request_to_queue`, `_abort_on_queued_limit` and `_poll_timeout_aborts`
//! in `sglang/srt/managers/scheduler.py`.

use std::{collections::BTreeSet, time::Duration};

use types::{FinishReason, GenerateReq};

use crate::{
    Executor, ReqId, Scheduler, SchedulerEvent,
    req::{Arrival, Req},
    scheduler::News,
};

impl<E: Executor> Scheduler<E> {
    pub(crate) fn enqueue(&mut self, req: GenerateReq, out: &mut Vec<SchedulerEvent>) {
        let rank = self.limits.queue.rank(req.priority);
        let refusal = match self.check(&req) {
            Err(message) => Some(FinishReason::bad_request(message)),
            Ok(()) => self.refusal(&req).or_else(|| self.make_place(rank, out)),
        };
        if let Some(reason) = refusal {
            self.totals.aborted_reqs += 1;
            out.push(SchedulerEvent::Refused { rid: req.rid, reason });
            return;
        }
        let rid = req.rid.clone();
        let arrival =
            Arrival { rank, time: self.now, prefilled_tokens: self.totals.prefilled_tokens };
        let id = self.reqs.insert(Req::new(req, self.limits.max_req_len(), arrival));
        self.rids.insert(rid, id);
        self.waiting.push_back(id);
        self.has_newcomer = true;
        if self.preemption_threshold().is_some() {
            self.admission_blocked = false; // it may take the place of one that runs
        }
    }

    fn check(&self, req: &GenerateReq) -> Result<(), String> {
        let (len, context_length) = (req.input_ids.len(), self.limits.context_length);
        let pool = self.limits.max_total_num_tokens();
        if self.contains(&req.rid) {
            return Err(format!("Duplicate request ID: {}", req.rid));
        }
        if len == 0 {
            return Err("The prompt is empty.".to_owned());
        }
        if len >= context_length {
            return Err(format!(
                "The input ({len} tokens) is longer than the model's context length \
                 ({context_length} tokens)."
            ));
        }
        if len > pool {
            return Err(format!(
                "The input ({len} tokens) is longer than the K/V pool ({pool} tokens)."
            ));
        }
        Ok(())
    }

    fn refusal(&self, req: &GenerateReq) -> Option<FinishReason> {
        let rules = &self.limits.queue;
        let is_vain = rules.priority.is_none() && rules.refuses_priority && req.priority.is_some();
        is_vain.then(|| {
            FinishReason::unavailable(
                "Using priority is disabled for this server. Please send a new request without a \
                 priority.",
            )
        })
    }

    /// A place in the queue for a request of this rank; why there is none. One with a lower
    /// priority makes room: the lowest, and of those the last.
    fn make_place(&mut self, rank: i64, out: &mut Vec<SchedulerEvent>) -> Option<FinishReason> {
        let most = self.limits.queue.max_queued_requests?;
        if self.waiting.len() < most {
            return None;
        }
        let waiting = self.waiting.iter().rev().copied();
        match waiting.min_by_key(|&id| self.reqs[id].rank) {
            Some(last) if self.reqs[last].rank < rank => {
                let reason = FinishReason::unavailable(
                    "The request is aborted by a higher priority request.",
                );
                self.finish(last, News::default(), reason, out);
                None
            }
            _ => Some(FinishReason::unavailable("The request queue is full.")),
        }
    }

    /// Ends what has waited or run for too long.
    pub(crate) fn expire(&mut self, out: &mut Vec<SchedulerEvent>) {
        let rules = &self.limits.queue;
        if !rules.has_timeouts() {
            return;
        }
        let (now, waiting, running) = (self.now, rules.waiting_timeout, rules.running_timeout);
        let is_over = |since: Duration, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_sub(since) > limit)
        };
        let waits = |id: &ReqId| is_over(self.reqs[*id].waiting_since, waiting);
        let late: BTreeSet<_> = self.waiting.iter().copied().filter(waits).collect();
        let runs = |id: &ReqId| {
            let since = self.reqs.get(*id).and_then(|req| req.running_since);
            since.is_some_and(|since| is_over(since, running))
        };
        let live = self.chunked.iter().chain(&self.running).copied();
        let long: BTreeSet<_> = live.filter(runs).collect();
        for (ids, text) in
            [(late, "Request waiting timeout reached."), (long, "Request running timeout reached.")]
        {
            self.finish_all(ids, &FinishReason::unavailable(text), out);
        }
    }
}
