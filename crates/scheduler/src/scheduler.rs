//! The state machine: messages in, one batch out, the batch before it read.
//!
//! The order of the acts is the design. A step launches batch `n` and only then
//! reads batch `n - 1`, so host work hides behind the device. The price: a
//! request whose EOS shows up in `n - 1` already sits in `n`. Its extra token is
//! dropped, and its pages change hands at once; see [`Executor`] for why its
//! stray K/V write harms nobody.
//!
//! Where a row follows a grammar, only the forward pass of `n` runs ahead: its tokens are
//! sampled when those of `n - 1` are read and say what may come (see `grammars`).
//!
//! Upstream: `event_loop_overlap` in `sglang/srt/managers/scheduler.py`.

mod pause;
mod stats;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    time::Duration,
};

use mem_cache::{MemCache, MemCacheConfig};
use slotmap::SlotMap;
use types::{
    FinishReason, ReqCounts, ReqEvent, ReqLogprobs, Rid, SplitMix64, TokenId, TokenLogprobs,
};

use crate::{
    Executor, ForwardMode, LimitsError, Progress, QueueRules, ReqId, ScheduleBatch, SchedulerEvent,
    SchedulerLimits, SchedulerMsg,
    new_token_ratio::NewTokenRatio,
    pooled::PooledSum,
    req::{Req, ReqState},
    scheduler::stats::Totals,
};

/// Schedules requests on an executor. Single-threaded; owns all bookkeeping of
/// requests and K/V pages.
#[derive(Debug)]
pub struct Scheduler<E: Executor> {
    pub(crate) executor: E,
    pub(crate) cache: MemCache,
    pub(crate) limits: SchedulerLimits,
    pub(crate) reqs: SlotMap<ReqId, Req>,
    pub(crate) rids: BTreeMap<Rid, ReqId>,
    /// Retracted ones first, then by arrival.
    pub(crate) waiting: VecDeque<ReqId>,
    /// Part-way through its prefill, holding pages for all of it.
    pub(crate) chunked: Option<ReqId>,
    /// The last batch was a piece of `chunked`.
    pub(crate) chunk_went_last: bool,
    /// Decode batches since the last piece of `chunked`, and how many there shall be.
    decodes_since_piece: usize,
    decodes_per_piece: usize,
    /// A request came since the last prefill batch was filled.
    pub(crate) has_newcomer: bool,
    /// Memory was too short for those that run to ride on the last prefill batch.
    pub(crate) running_left_out: bool,
    /// Prefilled, oldest first; each takes a token in each decode batch.
    pub(crate) running: Vec<ReqId>,
    /// Launched and not read.
    pub(crate) in_flight: Option<InFlight<E::Handle>>,
    /// Settled batches, kept for their memory.
    spare: Vec<ScheduleBatch>,
    pub(crate) new_token_ratio: NewTokenRatio,
    /// Memory or rows ran out: admit nobody until a request leaves.
    pub(crate) admission_blocked: bool,
    /// Launch nothing.
    is_paused: bool,
    /// One request at a time is prefilled.
    is_held_back: bool,
    /// Requests that may run at once, within the limits.
    max_running: usize,
    /// As last told.
    pub(crate) now: Duration,
    pub(crate) rng: SplitMix64,
    pub(crate) totals: Totals,
}

/// What a request hears.
#[derive(Debug, Default)]
pub(crate) struct News {
    token_ids: Vec<TokenId>,
    logprobs: Option<Box<ReqLogprobs>>,
    pooled: Option<Vec<f32>>,
}

#[derive(Debug)]
pub(crate) struct InFlight<H> {
    pub(crate) batch: ScheduleBatch,
    pub(crate) handle: H,
}

impl<E: Executor> Scheduler<E> {
    /// An idle scheduler.
    ///
    /// # Errors
    /// If the limits contradict each other.
    pub fn new(executor: E, limits: SchedulerLimits) -> Result<Self, LimitsError> {
        limits.validate()?;
        let cache = MemCache::new(MemCacheConfig {
            num_pages: limits.num_pages,
            page_size: limits.page_size,
            num_rows: limits.max_running_requests,
            disable_radix_cache: limits.disable_radix_cache,
            eviction_policy: limits.eviction_policy,
            max_step_tokens: limits.max_step_tokens(),
            states: limits.states,
            windows: limits.windows,
        });
        Ok(Self {
            executor,
            cache,
            reqs: SlotMap::with_key(),
            rids: BTreeMap::new(),
            waiting: VecDeque::new(),
            chunked: None,
            chunk_went_last: false,
            decodes_since_piece: 0,
            decodes_per_piece: 1,
            has_newcomer: false,
            running_left_out: false,
            running: Vec::new(),
            in_flight: None,
            spare: Vec::new(),
            new_token_ratio: NewTokenRatio::new(limits.schedule_conservativeness),
            admission_blocked: false,
            is_paused: false,
            is_held_back: false,
            max_running: limits.max_running_requests,
            now: Duration::ZERO,
            rng: SplitMix64::new(limits.queue.random_seed),
            totals: Totals::default(),
            limits,
        })
    }

    /// One turn: take the messages, launch a batch, read the one before it.
    /// Blocks in [`Executor::wait`] only.
    ///
    /// # Errors
    /// The executor's. The pages' contents are unknown then: go on with
    /// [`Self::fail_all`], or drop the scheduler.
    pub fn step(
        &mut self,
        inbox: impl IntoIterator<Item = SchedulerMsg>,
        out: &mut Vec<SchedulerEvent>,
    ) -> Result<Progress, E::Error> {
        for msg in inbox {
            self.handle(msg, out);
        }
        self.expire(out);
        let launched = match self.next_batch() {
            Some(batch) => Some(self.launch(batch)?),
            None => None,
        };
        let previous = mem::replace(&mut self.in_flight, launched);
        self.settle(previous, out)?;
        self.sample_constrained(out)?;
        if !self.limits.overlap {
            let launched = self.in_flight.take();
            self.settle(launched, out)?;
        }
        if self.in_flight.is_some() || self.has_live_reqs() && !self.is_paused {
            return Ok(Progress::Busy);
        }
        if !self.has_live_reqs() {
            self.new_token_ratio.reset();
        }
        Ok(Progress::Idle)
    }

    /// Whether any request waits or runs.
    pub fn has_live_reqs(&self) -> bool {
        !self.reqs.is_empty()
    }

    /// Whether a request of this name waits or runs.
    pub fn contains(&self, rid: &Rid) -> bool {
        self.rids.contains_key(rid)
    }

    /// Ends every request with a 500 and forgets batch in flight and cache: the
    /// way on after an error of the executor.
    pub fn fail_all(&mut self, message: &str, out: &mut Vec<SchedulerEvent>) {
        self.in_flight = None;
        let all = self.reqs.keys().collect();
        self.finish_all(all, &FinishReason::internal_error(message), out);
        self.running.clear();
        self.cache.flush();
    }

    /// What runs the batches.
    pub fn executor(&self) -> &E {
        &self.executor
    }

    /// What runs the batches.
    pub fn executor_mut(&mut self) -> &mut E {
        &mut self.executor
    }

    /// How many decode batches follow a piece of a long prompt: a matter of how long
    /// either takes, which only its caller knows. One at first.
    pub fn set_decodes_per_piece(&mut self, count: usize) {
        self.decodes_per_piece = count.max(1);
    }

    /// New rules for the waiting queue; who waits already has its place.
    pub fn set_queue_rules(&mut self, rules: QueueRules) {
        self.rng = SplitMix64::new(rules.random_seed);
        self.limits.queue = rules;
    }

    /// As given to [`Self::new`], but for [`Self::set_queue_rules`].
    pub fn limits(&self) -> &SchedulerLimits {
        &self.limits
    }

    fn handle(&mut self, msg: SchedulerMsg, out: &mut Vec<SchedulerEvent>) {
        match msg {
            SchedulerMsg::Generate(req) => self.enqueue(*req, out),
            SchedulerMsg::Abort(rid) => {
                if let Some(&id) = self.rids.get(&rid) {
                    self.finish(id, News::default(), FinishReason::aborted(), out);
                }
            }
            SchedulerMsg::AbortAll => {
                let all = self.reqs.keys().collect();
                self.finish_all(all, &FinishReason::aborted(), out);
            }
            SchedulerMsg::FlushCache => {
                let ok = self.flush_cache();
                out.push(SchedulerEvent::CacheFlushed { ok });
            }
            SchedulerMsg::Time(now) => self.now = now,
        }
    }

    /// Prefill goes first: it bounds the time to the first token and grows the
    /// decode batch. But between two pieces of a prompt those that run get tokens.
    fn next_batch(&mut self) -> Option<ScheduleBatch> {
        self.running.retain(|&id| self.reqs.contains_key(id)); // aborted between steps
        if self.is_paused {
            return None;
        }
        let mut batch = self.spare.pop().unwrap_or_else(ScheduleBatch::empty);
        batch.clear(ForwardMode::Decode);
        if self.is_turn_of_running() {
            self.fill_decode_batch(&mut batch);
        }
        let has_decode = !batch.rows.is_empty();
        self.decodes_since_piece = if has_decode { self.decodes_since_piece + 1 } else { 0 };
        if batch.rows.is_empty() {
            batch.clear(ForwardMode::Extend);
            self.fill_prefill_batch(&mut batch);
            self.mix_decode_rows(&mut batch);
        }
        if batch.rows.is_empty() {
            batch.clear(ForwardMode::Decode);
            self.fill_decode_batch(&mut batch);
        }
        if batch.rows.is_empty() {
            self.spare.push(batch);
            return None;
        }
        Some(batch)
    }

    fn is_turn_of_running(&self) -> bool {
        if self.limits.mixed_chunk {
            return self.running_left_out && !self.running.is_empty();
        }
        let shares = self.limits.prefill_sharing.is_some() && self.chunked.is_some();
        // A newcomer may be short enough to overtake the long prompt.
        let turns = if self.has_newcomer { 1 } else { self.decodes_per_piece };
        shares && self.decodes_since_piece < turns && !self.running.is_empty()
    }

    fn launch(&mut self, batch: ScheduleBatch) -> Result<InFlight<E::Handle>, E::Error> {
        let handle = self.executor.launch(&batch, self.cache.tables())?;
        for (sampled_row, row) in batch.sampled_rows().enumerate() {
            let req = &mut self.reqs[row.req];
            req.num_pending += 1;
            req.pending_row = sampled_row;
        }
        // Not written yet, but whoever reads these pages is launched later.
        for row in batch.prefill_rows() {
            let written = self.reqs[row.req].written();
            self.cache.commit(row.table_row, written);
        }
        Ok(InFlight { batch, handle })
    }

    /// Reads a batch: appends and publishes its tokens, ends what is done.
    fn settle(
        &mut self,
        in_flight: Option<InFlight<E::Handle>>,
        out: &mut Vec<SchedulerEvent>,
    ) -> Result<(), E::Error> {
        let Some(InFlight { batch, handle }) = in_flight else { return Ok(()) };
        let output = self.executor.wait(handle)?;
        let num_sampled = batch.sampled_rows().count();
        assert_eq!(output.token_ids.len(), num_sampled, "one token for each sampled row");
        let mut tokens = output.token_ids.into_iter();
        let mut logprobs = output.logprobs.into_iter().peekable();
        let mut pooled = output.pooled.into_iter();
        for (index, row) in batch.rows.iter().enumerate() {
            let token = if row.sampled { tokens.next() } else { None };
            let logprobs = logprobs.next_if(|logprobs| logprobs.row == index);
            let pooled = row.pooled.as_ref().and_then(|_| pooled.next());
            let Some(req) = self.reqs.get_mut(row.req) else {
                continue; // ended while this batch was in flight
            };
            let (input, logprob) = logprobs.map_or((Vec::new(), None), |l| (l.input, l.output));
            if let Some(wanted) = &row.input_logprobs {
                req.push_input_logprobs(row.prefix_len + wanted.first, input);
            }
            let end = row.prefix_len + row.extend_len;
            if let (Some(sum), Some(part)) = (&mut req.pooled, pooled) {
                sum.push(&(row.prefix_len..end), part);
            }
            match token {
                Some(token) => self.publish(row.req, token, logprob, out),
                None if end == req.tokens.len() => self.finish_prompt(row.req, out),
                None => {}
            }
        }
        self.running.retain(|&id| self.reqs.contains_key(id));
        self.spare.push(batch);
        Ok(())
    }

    /// `max_new_tokens` is 0 and the prompt is in.
    fn finish_prompt(&mut self, id: ReqId, out: &mut Vec<SchedulerEvent>) {
        let req = &mut self.reqs[id];
        let input = req.take_input_logprobs();
        let news = News {
            token_ids: Vec::new(),
            logprobs: input.map(|input| Box::new(ReqLogprobs { input, output: Vec::new() })),
            pooled: req.pooled.take().map(PooledSum::finish),
        };
        self.finish(id, news, FinishReason::Length { length: 0 }, out);
    }

    fn publish(
        &mut self,
        id: ReqId,
        token: TokenId,
        logprob: Option<TokenLogprobs>,
        out: &mut Vec<SchedulerEvent>,
    ) {
        self.totals.generation_tokens += 1;
        let req = &mut self.reqs[id];
        let logprobs = logprob.map(|logprob| {
            let input = req.take_input_logprobs().unwrap_or_default();
            Box::new(ReqLogprobs { input, output: vec![logprob] })
        });
        let news = News { token_ids: vec![token], logprobs, pooled: None };
        match req.push_token(token) {
            Some(reason) => self.finish(id, news, reason, out),
            None => {
                let event = news.event(req.counts(), None);
                out.push(SchedulerEvent::Req { rid: req.rid.clone(), event });
            }
        }
    }

    /// Ends a request wherever it stands. `running` keeps its id until the
    /// caller, or the next settled batch, cleans up: finishing many at once must
    /// not be quadratic.
    pub(crate) fn finish(
        &mut self,
        id: ReqId,
        news: News,
        reason: FinishReason,
        out: &mut Vec<SchedulerEvent>,
    ) {
        // Aborted, or retracted while its last token was in flight.
        if self.reqs[id].state() == ReqState::Waiting {
            self.waiting.retain(|&other| other != id);
        }
        self.end(id, news, reason, out);
    }

    /// [`Self::finish`] of many, with one pass over the queue.
    pub(crate) fn finish_all(
        &mut self,
        ids: BTreeSet<ReqId>,
        reason: &FinishReason,
        out: &mut Vec<SchedulerEvent>,
    ) {
        if ids.is_empty() {
            return;
        }
        self.waiting.retain(|id| !ids.contains(id));
        for id in ids {
            self.end(id, News::default(), reason.clone(), out);
        }
    }

    /// Ends a request that is not in the queue any more.
    fn end(&mut self, id: ReqId, news: News, reason: FinishReason, out: &mut Vec<SchedulerEvent>) {
        let mut req = self.reqs.remove(id).expect("the end of a live request");
        if req.state() == ReqState::Chunked {
            self.chunked = None;
        }
        if let Some(row) = req.table_row.take() {
            self.cache.close(row, req.written());
        }
        req.move_to(ReqState::Finished);
        self.admission_blocked = false;
        self.totals.aborted_reqs += u64::from(matches!(reason, FinishReason::Abort { .. }));
        self.rids.remove(&req.rid);
        let event = news.event(req.counts(), Some(reason));
        out.push(SchedulerEvent::Req { rid: req.rid, event });
    }
}

impl News {
    fn event(self, counts: ReqCounts, finish_reason: Option<FinishReason>) -> ReqEvent {
        let Self { token_ids, logprobs, pooled } = self;
        ReqEvent { token_ids, counts, finish_reason, logprobs, pooled }
    }
}
