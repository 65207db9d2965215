//! Decode batches, and retraction when the pool has no room for the next token.
//!
//! Upstream: `prepare_for_decode` and `retract_decode` in
//! `sglang/srt/managers/schedule_batch.py`.

use std::cmp::Reverse;

use mem_cache::Piece;

use crate::{
    Executor, InputId, ReqId, ScheduleBatch, Scheduler,
    req::{Req, ReqState},
};

/// A retraction frees pages for this many steps, so as not to come every step.
const RETRACT_DECODE_STEPS: usize = 20;

impl<E: Executor> Scheduler<E> {
    /// A token for each running request that wants one. Leaves the batch empty
    /// if none does, or if memory is short until the batch in flight is read.
    pub(crate) fn fill_decode_batch(&mut self, batch: &mut ScheduleBatch) {
        if !self.make_room_for_decode() {
            return;
        }
        self.running_left_out = false;
        for index in 0..self.running.len() {
            let id = self.running[index];
            // Without any, its last token is in flight.
            if self.reqs[id].num_remaining() > 0 {
                self.push_decode_row(id, batch);
            }
        }
    }

    /// The next token of a running request; pages for it can be had.
    fn push_decode_row(&mut self, id: ReqId, batch: &mut ScheduleBatch) {
        let req = &mut self.reqs[id];
        let row = req.table_row.expect("a running request has a row");
        let has_page = self.cache.reserve(row, req.kv_len + 1);
        assert!(has_page, "room for the whole batch was made");
        batch.input_ids.push(match req.tokens.get(req.kv_len) {
            Some(&token) => InputId::Host(token),
            None => InputId::Previous { row: req.pending_row },
        });
        let piece = Piece { start: req.kv_len, len: 1, total: req.tokens.len(), is_decode: true };
        batch.push_row(&mut self.cache, piece, req.batch_row(id, 1, true));
        req.kv_len += 1;
    }

    /// Lets those that run ride on a prefill batch, if they may and there is room for all
    /// of them. Nobody is retracted for it: without room their own turn is next.
    pub(crate) fn mix_decode_rows(&mut self, batch: &mut ScheduleBatch) {
        if !self.limits.mixed_chunk || batch.rows.is_empty() {
            return;
        }
        let is_new = |id: ReqId| batch.rows.iter().any(|row| row.req == id);
        let wants_token = |&id: &ReqId| self.reqs[id].num_remaining() > 0 && !is_new(id);
        let riders: Vec<_> = self.running.iter().copied().filter(wants_token).collect();
        let needed = self.decode_pages(&riders, 1);
        self.running_left_out = !self.cache.ensure_free_pages(needed);
        if self.running_left_out {
            return;
        }
        for &id in &riders {
            self.push_decode_row(id, batch);
        }
        batch.num_decode_rows = riders.len();
    }

    /// Tokens of a prefill batch that are for those that run.
    pub(crate) fn num_riders(&self) -> usize {
        let wants_token = |&&id: &&ReqId| self.reqs[id].num_remaining() > 0;
        let is_mixed = self.limits.mixed_chunk;
        if is_mixed { self.running.iter().filter(wants_token).count() } else { 0 }
    }

    /// Evicts, then retracts, until every running request can take a token.
    /// False if none can now.
    fn make_room_for_decode(&mut self) -> bool {
        let needed = self.decode_pages(&self.running, 1);
        if self.cache.ensure_free_pages(needed) {
            self.new_token_ratio.decay();
            return true;
        }
        if let Some(id) = self.chunked {
            // It has given nothing yet, and keeps what is computed if nobody needs it.
            self.retract(id);
            if self.cache.ensure_free_pages(needed) {
                return true;
            }
        }
        let mut kept = self.retraction_order();
        while let [_, .., victim] = kept[..] {
            kept.pop();
            self.retract(victim);
            let needed = self.decode_pages(&kept, RETRACT_DECODE_STEPS);
            if self.cache.ensure_free_pages(needed) {
                break;
            }
        }
        self.raise_new_token_ratio(&kept);
        let needed = self.decode_pages(&kept, 1);
        let has_room = self.cache.ensure_free_pages(needed);
        // Others leave, or this one ends, when the batch in flight is read.
        let will_have = self.running.len() > 1 || self.reqs[kept[0]].num_pending > 0;
        assert!(has_room || will_have, "the pool holds any request that is alone");
        has_room
    }

    /// Pages that these requests lack for up to `steps` more tokens each.
    fn decode_pages(&self, ids: &[ReqId], steps: usize) -> usize {
        let lacking = |&id: &ReqId| {
            let req: &Req = &self.reqs[id];
            let held = self.cache.pages_for(req.kv_len);
            self.cache.pages_for(req.kv_len + req.num_remaining().min(steps)) - held
        };
        ids.iter().map(lacking).sum()
    }

    /// Those that want a token, the one to keep longest first: highest priority if that
    /// counts here, most generated, then shortest prompt, then oldest.
    fn retraction_order(&self) -> Vec<ReqId> {
        let wants_token = |&id: &ReqId| self.reqs[id].num_remaining() > 0;
        let mut order: Vec<_> = self.running.iter().copied().filter(wants_token).collect();
        order.sort_by_key(|&id| {
            let req = &self.reqs[id];
            (self.retraction_rank(id), Reverse(req.output_len()), req.prompt_len)
        });
        order
    }

    /// Back to the head of the queue, without pages. What it wrote stays in the
    /// tree: if eviction spares it, the second prefill is cheap.
    pub(crate) fn retract(&mut self, id: ReqId) {
        let req = &mut self.reqs[id];
        let row = req.table_row.take().expect("only requests with pages are retracted");
        self.cache.close(row, req.written());
        req.kv_len = 0;
        req.num_retractions += 1;
        req.waiting_since = self.now;
        let (input, output) = (req.prompt_len, req.output_len());
        req.move_to(ReqState::Waiting);
        self.waiting.push_front(id);
        self.running.retain(|&other| other != id);
        self.chunked = self.chunked.filter(|&chunked| chunked != id);
        self.admission_blocked = false;
        self.totals.retractions += 1;
        self.totals.retracted_input_tokens += input as u64;
        self.totals.retracted_output_tokens += output as u64;
    }

    fn raise_new_token_ratio(&mut self, kept: &[ReqId]) {
        let reqs = kept.iter().map(|&id| &self.reqs[id]);
        let generated = reqs.clone().map(|req| req.output_len() + RETRACT_DECODE_STEPS).sum();
        let max_new = reqs.map(|req| req.max_new_tokens).sum();
        self.new_token_ratio.raise(generated, max_new);
    }
}
