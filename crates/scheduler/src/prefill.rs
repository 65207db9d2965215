//! Admission: fills an extend batch from the queue, within every budget.
//!
//! A request is admitted if the pool has room for its prompt and for what it
//! and those running are expected to generate. The expectation may fail; then
//! `decode.rs` retracts. A request alone in the pool is admitted in any case,
//! so that the queue always moves.
//!
//! Upstream: `PrefillAdder` in `sglang/srt/managers/schedule_policy.py`.

use mem_cache::Piece;
use types::TokenId;

use crate::{
    BatchRow, Executor, InputId, PrefillSharing, ReqId, ScheduleBatch, Scheduler,
    policy::InBatchPrefixes,
    req::{Req, ReqState},
};

/// A request's `max_new_tokens` beyond this is not planned for.
const CLIP_MAX_NEW_TOKENS: usize = 4096;

/// Positions of prompts whose log-probabilities one batch computes: each has logits of the
/// whole vocabulary.
const MAX_INPUT_LOGPROBS: usize = 512;

/// What is left for one batch.
#[derive(Debug)]
struct Budget {
    /// Tokens of this batch.
    input: usize,
    /// Tokens of this batch before a prompt is split.
    chunk: usize,
    /// Tokens of requests that want their prompts' log-probabilities.
    logits: usize,
    /// Tokens to keep free for what requests will generate.
    reserved: usize,
}

impl Budget {
    /// Tokens of this request before its prompt is split.
    fn chunk_of(&self, req: &Req) -> usize {
        match req.first_logprob() {
            Some(_) => self.chunk.min(self.logits),
            None => self.chunk,
        }
    }
}

/// The outcome for one request.
#[derive(Debug, PartialEq, Eq)]
enum Added {
    /// The whole rest of its prompt.
    Whole,
    /// A part; nothing else fits.
    Chunk,
    /// Pages or rows are short, or as many run as may, until a request leaves.
    NoMemory,
    /// This batch is full.
    NoBudget,
}

impl<E: Executor> Scheduler<E> {
    /// Leaves the batch empty if nothing can be prefilled now.
    pub(crate) fn fill_prefill_batch(&mut self, batch: &mut ScheduleBatch) {
        if self.running.is_empty() && self.chunked.is_none() {
            self.admission_blocked = false;
        }
        self.has_newcomer = false;
        self.yield_chunked();
        let mut budget = self.budget();
        if let Some(id) = self.chunked {
            if let Some(sharing) = self.limits.prefill_sharing.filter(|_| self.chunk_went_last) {
                self.overtake(sharing, batch);
            }
            if !batch.rows.is_empty() {
                self.chunk_went_last = false;
                return;
            }
            self.continue_chunked(id, &mut budget, batch);
        }
        if self.chunked.is_none() {
            self.admit(false, &mut budget, batch);
        }
        self.chunk_went_last = self.chunked.is_some();
    }

    /// Short prompts between two pieces of a long one, if any wait: whole ones only,
    /// all of them together no longer than a prompt that comes in one piece.
    fn overtake(&mut self, sharing: PrefillSharing, batch: &mut ScheduleBatch) {
        let mut budget = self.budget();
        budget.chunk = budget.chunk.min(sharing.above);
        self.admit(true, &mut budget, batch);
    }

    fn admit(&mut self, whole_only: bool, budget: &mut Budget, batch: &mut ScheduleBatch) {
        if self.waiting.is_empty() || self.admission_blocked {
            return;
        }
        let mut in_batch = InBatchPrefixes::default();
        let most = self.limits.queue.prefill_max_requests.unwrap_or(usize::MAX);
        for id in self.admission_order() {
            if batch.rows.len() >= most {
                break;
            }
            let page_size = self.limits.page_size;
            let cached = self.cache.peek_prefix(cacheable(&self.reqs[id]));
            if !self.limits.disable_radix_cache
                && in_batch.holds_back(cacheable(&self.reqs[id]), cached, page_size)
            {
                continue;
            }
            if whole_only && self.reqs[id].tokens.len() - cached > budget.chunk_of(&self.reqs[id]) {
                continue;
            }
            let mut added = self.try_add(id, budget, batch);
            while added == Added::NoMemory && self.preempt_for(id, &mut budget.reserved, batch) {
                added = self.try_add(id, budget, batch);
            }
            match added {
                Added::Whole => in_batch.insert(&self.reqs[id].tokens, page_size),
                Added::NoMemory => {
                    self.admission_blocked = true;
                    break;
                }
                Added::Chunk | Added::NoBudget => break,
            }
        }
        self.waiting.retain(|&id| self.reqs[id].state() == ReqState::Waiting);
    }

    fn budget(&self) -> Budget {
        let expected: f64 = self
            .running
            .iter()
            .map(|&id| expected_new_tokens(&self.reqs[id]) as f64 * self.new_token_ratio.get())
            .sum();
        let chunk = self.limits.chunked_prefill_size.unwrap_or(usize::MAX);
        let riders = self.num_riders();
        Budget {
            input: self.limits.max_prefill_tokens.saturating_sub(riders),
            // However many ride along, a prompt gets on.
            chunk: chunk.saturating_sub(riders).max(self.limits.page_size),
            // A piece has a page at least.
            logits: MAX_INPUT_LOGPROBS.max(self.limits.page_size),
            reserved: expected as usize,
        }
    }

    /// The next piece of the request that is part-way.
    fn continue_chunked(&mut self, id: ReqId, budget: &mut Budget, batch: &mut ScheduleBatch) {
        let req = &self.reqs[id];
        let len = self.piece_len(req.tokens.len() - req.kv_len, true, budget.chunk_of(req));
        self.add_row(id, len, budget, batch);
    }

    fn try_add(&mut self, id: ReqId, budget: &mut Budget, batch: &mut ScheduleBatch) -> Added {
        if !self.may_run_one_more() {
            return Added::NoMemory;
        }
        let is_alone = self.running.is_empty() && self.chunked.is_none() && batch.rows.is_empty();
        let req = &self.reqs[id];
        debug_assert_eq!(req.num_pending, 0, "{}: admitted with a token in flight", req.rid);
        let total = req.tokens.len();
        let is_possible = self.cache.pages_for(total) <= self.cache.num_pages();
        assert!(is_possible, "{}: {total} tokens are more than the pool holds", req.rid);
        let Some((row, cached)) = self.cache.open(cacheable(req), req.max_len(), req.rank) else {
            return Added::NoMemory;
        };
        let len = self.piece_len(total - cached, false, budget.chunk_of(req));
        let is_over_budget = len == 0 || (len > budget.input && !batch.rows.is_empty());
        let new_pages = self.pages_to_admit(id, cached, budget.reserved);
        let has_room = is_alone || new_pages <= self.cache.num_available_pages();
        // Pages for all of it: those that run take theirs between its pieces.
        if is_over_budget || !has_room || !self.cache.reserve(row, total) {
            self.cache.close(row, &[]);
            return if is_over_budget { Added::NoBudget } else { Added::NoMemory };
        }
        let req = &mut self.reqs[id];
        req.table_row = Some(row);
        req.kv_len = cached;
        req.running_since.get_or_insert(self.now);
        if req.cached_tokens.is_none() {
            req.queue_time = self.now.saturating_sub(req.waiting_since);
            req.cached_tokens = Some(cached);
            self.totals.prompt_tokens += req.prompt_len as u64;
            self.totals.cached_tokens += cached as u64;
        }
        self.add_row(id, len, budget, batch)
    }

    /// Pages for a request with `cached` tokens in the cache, for what it is expected to
    /// generate, and for `reserved` tokens of others.
    pub(crate) fn pages_to_admit(&self, id: ReqId, cached: usize, reserved: usize) -> usize {
        let req = &self.reqs[id];
        self.cache.pages_for(req.tokens.len() - cached + expected_new_tokens(req) + reserved)
    }

    /// How much of `rest` tokens goes into this batch: all, or whole pages. What began
    /// in pieces goes on in pieces.
    fn piece_len(&self, rest: usize, has_begun: bool, chunk: usize) -> usize {
        let shared = self.limits.prefill_sharing.filter(|_| !self.running.is_empty());
        let chunk = match shared.filter(|sharing| has_begun || rest > sharing.above) {
            Some(sharing) => chunk.min(sharing.chunk),
            None => chunk,
        };
        if rest <= chunk {
            return rest;
        }
        chunk - chunk % self.limits.page_size
    }

    /// Enters the next `len` tokens of a request whose pages are there.
    fn add_row(
        &mut self,
        id: ReqId,
        len: usize,
        budget: &mut Budget,
        batch: &mut ScheduleBatch,
    ) -> Added {
        let req = &mut self.reqs[id];
        let piece = req.kv_len..req.kv_len + len;
        let is_whole = piece.end == req.tokens.len();
        batch.input_ids.extend(req.tokens[piece.clone()].iter().map(|&id| InputId::Host(id)));
        let sampled = is_whole && req.max_new_tokens > 0;
        let state_piece =
            Piece { start: req.kv_len, len, total: req.tokens.len(), is_decode: false };
        let pooled = req.pooled.as_ref();
        let row = BatchRow {
            input_logprobs: req.input_logprobs(piece.clone()),
            pooled: pooled.and_then(|sum| sum.wanted(&piece, req.prompt_len)),
            ..req.batch_row(id, len, sampled)
        };
        batch.push_row(&mut self.cache, state_piece, row);
        if req.first_logprob().is_some() {
            budget.logits = budget.logits.saturating_sub(len);
        }
        req.kv_len = piece.end;
        budget.input = budget.input.saturating_sub(len);
        budget.chunk -= len;
        self.totals.prefilled_tokens += len as u64;
        if is_whole {
            budget.reserved += expected_new_tokens(req);
            req.move_to(ReqState::Running);
            self.chunked = self.chunked.filter(|&chunked| chunked != id);
            self.running.push(id);
            return Added::Whole;
        }
        if req.state() == ReqState::Waiting {
            req.move_to(ReqState::Chunked);
            self.chunked = Some(id);
        }
        Added::Chunk
    }
}

/// The tokens whose prefix may come from the cache: one more than may, as the last is
/// computed in any case.
pub(crate) fn cacheable(req: &Req) -> &[TokenId] {
    &req.tokens[..=req.num_cacheable()]
}

pub(crate) fn expected_new_tokens(req: &Req) -> usize {
    req.num_remaining().min(CLIP_MAX_NEW_TOKENS)
}
