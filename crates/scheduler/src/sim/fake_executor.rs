//! A device whose K/V is the prefix itself.
//!
//! Each slot holds the hash of the whole prefix that was written there, as real
//! K/V depends on all tokens before it. Batches run late, when somebody waits,
//! and in launch order; each run reads every row's page table back from the
//! first token on and panics unless it spells the request's tokens. Aliased
//! pages, early frees, wrong slots, bad splits and lost tokens all end there.
//!
//! A recurrent state is the hash of the prefix that it has seen. A batch first reads
//! what its rows begin with and then writes, as a device may run rows in any order.
//!
//! Layers with a window have slots of their own, of which a row reads no more than it sees.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    ops::Range,
    rc::Rc,
};

use mem_cache::{PageTables, StateFlow};
use types::{PageId, TokenId, TokenLogprobs};

use super::{
    oracle::{PrefixHash, VOCAB_SIZE},
    workload::Workload,
};
use crate::{
    BatchOutput, BatchRow, Executor, ForwardMode, InputId, RowLogprobs, RowMask, SamplingRow,
    ScheduleBatch,
};

#[derive(Debug)]
pub(super) struct FakeExecutor {
    page_size: usize,
    slots: Vec<PrefixHash>,
    /// Of the window pages; empty without.
    window_slots: Vec<PrefixHash>,
    /// 0 without window pages.
    window: usize,
    /// By state id; empty for a model without recurrent layers.
    states: Vec<Option<PrefixHash>>,
    /// Rows that began with a snapshot.
    pub(super) num_snapshots_read: u64,
    /// Launched and not run.
    queue: VecDeque<Launched>,
    num_launched: usize,
    /// Results of batches that ran, for their handles.
    results: Vec<Option<BatchOutput>>,
    /// Tokens sampled by the batch that ran last.
    previous: Vec<TokenId>,
    /// By seed.
    histories: Vec<History>,
    /// Rows with suppressed tokens.
    pub(super) num_suppressed: u64,
    /// Rows whose grammar forbade something.
    pub(super) num_masked: u64,
    /// Rows with penalties for a token that the host had not read.
    pub(super) num_pending_penalties: u64,
    pub(super) num_sampled: u64,
    /// Rows of running requests in prefill batches.
    pub(super) num_riders: u64,
    /// Told, from the third launch on, to write each batch's last token to a
    /// slot that is not its own; set once that happened.
    pub(super) wrong_slot: Option<Rc<Cell<bool>>>,
}

/// A request as the device knows it: prompt and all tokens sampled.
#[derive(Debug, Default)]
struct History {
    prompt_len: usize,
    tokens: Vec<TokenId>,
    /// After each token.
    prefixes: Vec<PrefixHash>,
}

/// What a device would have copied at launch.
#[derive(Debug)]
struct Launched {
    batch: ScheduleBatch,
    /// Of the constrained rows; `None`: yet to come.
    masks: Option<Vec<RowMask>>,
    /// Of each row.
    pages: Vec<Vec<PageId>>,
    /// Likewise, from each row's first page with a window page on.
    window_pages: Vec<Vec<PageId>>,
}

impl FakeExecutor {
    pub(super) fn new(workload: &Workload) -> Self {
        Self {
            page_size: workload.limits.page_size,
            slots: vec![PrefixHash::EMPTY; workload.limits.max_total_num_tokens()],
            window_slots: vec![
                PrefixHash::EMPTY;
                workload.limits.windows.map_or(0, |windows| windows.num_pages)
                    * workload.limits.page_size
            ],
            window: workload.limits.windows.map_or(0, |windows| windows.window),
            states: vec![None; workload.limits.states.map_or(0, |states| states.num_states)],
            num_snapshots_read: 0,
            queue: VecDeque::new(),
            num_launched: 0,
            results: Vec::new(),
            previous: Vec::new(),
            histories: workload.reqs.iter().map(|req| History::new(&req.input_ids)).collect(),
            num_suppressed: 0,
            num_masked: 0,
            num_pending_penalties: 0,
            num_sampled: 0,
            num_riders: 0,
            wrong_slot: None,
        }
    }

    fn run(&mut self, launched: &Launched) {
        let batch = &launched.batch;
        let mut start = 0;
        self.check_states(batch);
        for row in &batch.rows {
            let index = row.sampling.seed as usize;
            let tokens = start..start + row.extend_len;
            self.write(index, row.prefix_len, batch, tokens.clone());
            self.write_states(index, row, batch, tokens.clone());
            start = tokens.end;
        }
        assert_eq!(start, batch.num_tokens());
        // All of a layer's writes come before its attention.
        let mut output = BatchOutput::default();
        let masks = launched.masks.as_ref().expect("masks come before anybody waits");
        for (place, row) in batch.rows.iter().enumerate() {
            let index = row.sampling.seed as usize;
            let len = row.prefix_len + row.extend_len;
            self.read_back(index, len, &launched.pages[place]);
            if let Some(first) = row.first_window_page {
                self.read_window(index, row, first, &launched.window_pages[place]);
            }
            let logprobs = self.logprobs(index, (place, row));
            output.logprobs.extend(logprobs);
            output.pooled.extend(self.pooled(index, row));
            if row.sampled {
                let sampled_row = output.token_ids.len();
                let mask = masks.iter().find(|mask| mask.sampled_row == sampled_row);
                output.token_ids.push(self.sample(index, len, &row.sampling, mask));
            }
        }
        self.num_sampled += output.token_ids.len() as u64;
        self.previous.clone_from(&output.token_ids);
        self.results.push(Some(output));
    }

    fn pooled(&self, index: usize, row: &BatchRow) -> Option<Vec<f32>> {
        let wanted = row.pooled.as_ref()?;
        assert!(wanted.start < wanted.end && wanted.end <= row.extend_len, "request {index}");
        let positions = row.prefix_len + wanted.start..row.prefix_len + wanted.end;
        let outputs =
            self.histories[index].prefixes[positions].iter().map(|prefix| prefix.output());
        Some(vec![outputs.sum()])
    }

    /// A log-probability of the prompt is the position that it was computed at; one of the
    /// completion is the number of the token.
    fn logprobs(&self, index: usize, (place, row): (usize, &BatchRow)) -> Option<RowLogprobs> {
        let at = |position: usize| TokenLogprobs { logprob: position as f32, ..Default::default() };
        let mut input = Vec::new();
        if let Some(wanted) = &row.input_logprobs {
            let first = row.prefix_len + wanted.first;
            let last = first + wanted.targets.len();
            assert!(last <= row.prefix_len + row.extend_len, "request {index}: beyond the piece");
            assert_eq!(wanted.targets, self.histories[index].tokens[first + 1..=last]);
            input.extend((first..last).map(at));
        }
        let wants_output = row.sampled && row.sampling.logprobs.is_some();
        let output = wants_output.then(|| at(row.sampling.token_index));
        (!input.is_empty() || output.is_some()).then_some(RowLogprobs { row: place, input, output })
    }

    /// Counts and the pending token together are the completion so far.
    fn check_penalties(&mut self, index: usize, row: &SamplingRow) {
        let Some(known) = &row.penalties else { return };
        let history = &self.histories[index];
        let mut counts: BTreeMap<TokenId, u32> = known.counts.iter().copied().collect();
        if let Some(pending) = known.pending {
            self.num_pending_penalties += 1;
            *counts.entry(self.previous[pending]).or_default() += 1;
        }
        let mut expected = BTreeMap::new();
        for &token in &history.tokens[history.prompt_len..] {
            *expected.entry(token).or_default() += 1;
        }
        assert_eq!(counts, expected, "request {index}: tokens to penalize");
    }

    /// Checks a row's inputs and puts their K/V where the batch says.
    fn write(&mut self, index: usize, prefix_len: usize, batch: &ScheduleBatch, row: Range<usize>) {
        let history = &self.histories[index];
        for (position, i) in (prefix_len..).zip(row) {
            let token = match batch.input_ids[i] {
                InputId::Host(token) => token,
                InputId::Previous { row } => self.previous[row],
            };
            assert_eq!(token, history.tokens[position], "request {index}: input at {position}");
            assert_eq!(batch.positions[i] as usize, position, "request {index}");
            let slot = batch.out_cache_loc[i].0 as usize;
            self.slots[slot] = history.prefixes[position];
            if let Some(slot) = batch.window_out_cache_loc.get(i) {
                self.window_slots[slot.0 as usize] = history.prefixes[position];
            }
        }
    }

    /// What rows begin with is there, and nobody writes what another one reads.
    fn check_states(&mut self, batch: &ScheduleBatch) {
        let mut written: Vec<_> = batch.snapshots.iter().map(|snapshot| snapshot.state).collect();
        for row in &batch.rows {
            let index = row.sampling.seed as usize;
            let Some(StateFlow { from, to }) = row.state else {
                assert!(self.states.is_empty(), "request {index}: no state");
                continue;
            };
            let expected = match row.prefix_len {
                0 => None,
                len => Some(self.histories[index].prefixes[len - 1]),
            };
            let found = from.and_then(|from| self.states[from.0 as usize]);
            assert_eq!(found, expected, "request {index}: state after {}", row.prefix_len);
            self.num_snapshots_read += u64::from(from.is_some_and(|from| from != to));
            written.push(to);
        }
        for row in &batch.rows {
            let reads = row.state.and_then(|state| state.from.filter(|&from| from != state.to));
            assert!(reads.is_none_or(|from| !written.contains(&from)), "{reads:?} is written");
        }
        let num_written = written.len();
        written.sort_unstable();
        written.dedup();
        assert_eq!(written.len(), num_written, "a state is written twice");
    }

    fn write_states(
        &mut self,
        index: usize,
        row: &BatchRow,
        batch: &ScheduleBatch,
        tokens: Range<usize>,
    ) {
        let Some(state) = row.state else { return };
        let prefixes = &self.histories[index].prefixes;
        let seen = |token: usize| prefixes[row.prefix_len + token - tokens.start];
        for snapshot in batch.snapshots.iter().filter(|snapshot| tokens.contains(&snapshot.token)) {
            self.states[snapshot.state.0 as usize] = Some(seen(snapshot.token));
        }
        self.states[state.to.0 as usize] = Some(seen(tokens.end - 1));
    }

    fn read_back(&self, index: usize, len: usize, pages: &[PageId]) {
        let history = &self.histories[index];
        for (page, expected) in pages.iter().zip(history.prefixes[..len].chunks(self.page_size)) {
            let first = page.slot(0, self.page_size).0 as usize;
            assert_eq!(
                &self.slots[first..first + expected.len()],
                expected,
                "request {index}: page {} does not hold its tokens",
                page.0
            );
        }
        assert!(len <= pages.len() * self.page_size, "request {index}: too few pages");
    }

    /// What the row's tokens see through a window, in its window pages from page `first` on.
    fn read_window(&self, index: usize, row: &BatchRow, first: usize, pages: &[PageId]) {
        let seen = (row.prefix_len + 1).saturating_sub(self.window);
        for position in seen..row.prefix_len + row.extend_len {
            let page = pages[position / self.page_size - first];
            let slot = page.slot(position % self.page_size, self.page_size);
            assert_eq!(
                self.window_slots[slot.0 as usize], self.histories[index].prefixes[position],
                "request {index}: window page {} does not hold position {position}",
                page.0
            );
        }
    }

    fn sample(
        &mut self,
        index: usize,
        len: usize,
        row: &SamplingRow,
        mask: Option<&RowMask>,
    ) -> TokenId {
        self.check_penalties(index, row);
        let history = &mut self.histories[index];
        assert_eq!(len, history.prompt_len + row.token_index, "request {index}");
        assert_eq!(len, history.tokens.len(), "request {index}: a token sampled twice");
        let suppress = row.suppress.as_deref().unwrap_or(&[]);
        self.num_suppressed += u64::from(!suppress.is_empty());
        self.num_masked += u64::from(mask.is_some());
        let mut forbidden = mask.map_or(Vec::new(), |mask| not_allowed(&mask.words));
        forbidden.extend(suppress);
        let token = history.prefixes[len - 1].sample(row.temperature, row.seed, &forbidden);
        history.push(token);
        token
    }
}

fn not_allowed(mask: &[u32]) -> Vec<TokenId> {
    (0..VOCAB_SIZE as TokenId).filter(|&token| mask[0] >> token & 1 == 0).collect()
}

impl History {
    fn new(prompt: &[TokenId]) -> Self {
        let mut history = Self { prompt_len: prompt.len(), ..Self::default() };
        prompt.iter().for_each(|&token| history.push(token));
        history
    }

    fn push(&mut self, token: TokenId) {
        let before = self.prefixes.last().copied().unwrap_or(PrefixHash::EMPTY);
        self.tokens.push(token);
        self.prefixes.push(before.push(token));
    }
}

impl Executor for FakeExecutor {
    type Handle = usize;
    type Error = Infallible;

    fn launch(
        &mut self,
        batch: &ScheduleBatch,
        tables: &PageTables,
    ) -> Result<Self::Handle, Self::Error> {
        assert!(!batch.rows.is_empty());
        let num_prefill_rows = batch.prefill_rows().len();
        for (place, row) in batch.rows.iter().enumerate() {
            if place < num_prefill_rows {
                assert_eq!(row.prefix_len % self.page_size, 0);
            } else {
                assert!(row.sampled && row.extend_len == 1);
            }
        }
        assert_eq!(num_prefill_rows > 0, batch.mode == ForwardMode::Extend);
        self.num_riders += batch.num_decode_rows as u64;
        let pages = batch.rows.iter().map(|row| tables.pages(row.table_row).to_vec()).collect();
        let window_pages = |row: &BatchRow| match row.first_window_page {
            Some(first) => {
                let end = (row.prefix_len + row.extend_len).div_ceil(self.page_size);
                tables.window_pages(row.table_row, first..end).collect()
            }
            None => Vec::new(),
        };
        let window_pages = batch.rows.iter().map(window_pages).collect();
        assert_eq!(batch.window_out_cache_loc.is_empty(), self.window == 0);
        let mut batch = batch.clone();
        if let Some(is_planted) = &self.wrong_slot
            && self.num_launched >= 2
        {
            let slot = batch.out_cache_loc.last_mut().expect("a batch has tokens");
            let wrong = (slot.0 + 1) % self.slots.len() as u32;
            is_planted.set(is_planted.get() || slot.0 != wrong);
            slot.0 = wrong;
        }
        let masks = (!batch.is_constrained()).then(Vec::new);
        self.queue.push_back(Launched { batch, masks, pages, window_pages });
        self.num_launched += 1;
        assert!(self.queue.len() <= 2, "at most one batch ahead");
        Ok(self.num_launched - 1)
    }

    fn sample(
        &mut self,
        handle: &mut Self::Handle,
        batch: &ScheduleBatch,
        masks: &[RowMask],
    ) -> Result<(), Self::Error> {
        assert_eq!(*handle + 1, self.num_launched, "the batch launched last");
        assert_eq!(self.results.len(), *handle, "the batch before it was waited for");
        let launched = self.queue.back_mut().expect("a batch that waits for masks");
        assert!(launched.masks.replace(masks.to_vec()).is_none(), "sampled once");
        for (launched, row) in launched.batch.rows.iter_mut().zip(&batch.rows) {
            launched.sampling.clone_from(&row.sampling);
        }
        Ok(())
    }

    fn wait(&mut self, handle: Self::Handle) -> Result<BatchOutput, Self::Error> {
        while self.results.len() <= handle {
            let launched = self.queue.pop_front().expect("the handle of a launched batch");
            self.run(&launched);
        }
        Ok(self.results[handle].take().expect("a handle is waited for once"))
    }
}
