//! A device whose K/V is the prefix itself.
//!
//! Each slot holds the hash of the whole prefix that was written there, as real
//! K/V depends on all tokens before it. Batches run late, when somebody waits,
//! and in launch order; each run reads every row's page table back from the
//! first token on and panics unless it spells the request's tokens. Aliased
//! pages, early frees, wrong slots, bad splits and lost tokens all end there.

use std::{cell::Cell, collections::VecDeque, convert::Infallible, rc::Rc};

use mem_cache::PageTables;
use types::{PageId, TokenId};

use super::{oracle::PrefixHash, workload::Workload};
use crate::{Executor, ForwardMode, InputId, ScheduleBatch};

#[derive(Debug)]
pub(super) struct FakeExecutor {
    page_size: usize,
    slots: Vec<Option<PrefixHash>>,
    /// Launched and not run.
    queue: VecDeque<Launched>,
    num_launched: usize,
    /// Results of batches that ran, for their handles.
    results: Vec<Option<Vec<TokenId>>>,
    /// Tokens sampled by the batch that ran last.
    previous: Vec<TokenId>,
    /// Prompt and all sampled tokens of each request; its seed is the index.
    histories: Vec<Vec<TokenId>>,
    prompt_lens: Rc<[usize]>,
    /// Rows with suppressed tokens.
    pub(super) num_suppressed: u64,
    pub(super) num_sampled: u64,
    /// Told, from the third launch on, to write each batch's last token to a
    /// slot that is not its own; set once that happened.
    pub(super) wrong_slot: Option<Rc<Cell<bool>>>,
}

/// What a device would have copied at launch.
#[derive(Debug)]
struct Launched {
    batch: ScheduleBatch,
    /// Of each row.
    pages: Vec<Vec<PageId>>,
}

impl FakeExecutor {
    pub(super) fn new(workload: &Workload) -> Self {
        let histories: Vec<_> = workload.reqs.iter().map(|req| req.input_ids.clone()).collect();
        Self {
            page_size: workload.limits.page_size,
            slots: vec![None; workload.limits.max_total_num_tokens()],
            queue: VecDeque::new(),
            num_launched: 0,
            results: Vec::new(),
            previous: Vec::new(),
            prompt_lens: histories.iter().map(Vec::len).collect(),
            histories,
            num_suppressed: 0,
            num_sampled: 0,
            wrong_slot: None,
        }
    }

    fn run(&mut self, launched: &Launched) {
        let Launched { batch, pages } = launched;
        let mut sampled = Vec::new();
        let mut start = 0;
        for (row, pages) in batch.rows.iter().zip(pages) {
            let index = row.sampling.seed as usize;
            let end = start + row.extend_len;
            let inputs = batch.input_ids[start..end].iter().map(|&input| match input {
                InputId::Host(token) => token,
                InputId::Previous { row } => self.previous[row],
            });
            let inputs: Vec<_> = inputs.collect();
            let len = row.prefix_len + row.extend_len;
            let expected = &self.histories[index][..len];
            assert_eq!(inputs, expected[row.prefix_len..], "request {index}: its input");

            let mut prefix = PrefixHash::EMPTY;
            for (position, &token) in expected.iter().enumerate() {
                prefix = prefix.push(token);
                if let Some(i) = position.checked_sub(row.prefix_len) {
                    assert_eq!(batch.positions[start + i] as usize, position);
                    self.slots[batch.out_cache_loc[start + i].0 as usize] = Some(prefix);
                }
            }
            self.read_back(index, expected, pages);
            if row.sampled {
                let prompt_len = self.prompt_lens[index];
                assert_eq!(len, prompt_len + row.sampling.token_index, "request {index}");
                let suppress = row.sampling.suppress.as_deref().unwrap_or(&[]);
                self.num_suppressed += u64::from(!suppress.is_empty());
                let temperature = row.sampling.temperature;
                let token = prefix.sample(temperature, row.sampling.seed, suppress);
                let history = &mut self.histories[index];
                assert_eq!(history.len(), len, "request {index}: a token sampled twice");
                history.push(token);
                sampled.push(token);
            }
            start = end;
        }
        assert_eq!(start, batch.num_tokens());
        self.num_sampled += sampled.len() as u64;
        self.results.push(Some(sampled.clone()));
        self.previous = sampled;
    }

    fn read_back(&self, index: usize, expected: &[TokenId], pages: &[PageId]) {
        let mut prefix = PrefixHash::EMPTY;
        for (position, &token) in expected.iter().enumerate() {
            prefix = prefix.push(token);
            let page = pages[position / self.page_size];
            let slot = page.slot(position % self.page_size, self.page_size);
            assert_eq!(
                self.slots[slot.0 as usize],
                Some(prefix),
                "request {index}: position {position} is not in slot {}",
                slot.0
            );
        }
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
        for row in &batch.rows {
            match batch.mode {
                ForwardMode::Extend => assert_eq!(row.prefix_len % self.page_size, 0),
                ForwardMode::Decode => assert!(row.sampled && row.extend_len == 1),
            }
        }
        let pages = batch.rows.iter().map(|row| tables.pages(row.table_row).to_vec()).collect();
        let mut batch = batch.clone();
        if let Some(is_planted) = &self.wrong_slot
            && self.num_launched >= 2
        {
            let slot = batch.out_cache_loc.last_mut().expect("a batch has tokens");
            let wrong = (slot.0 + 1) % self.slots.len() as u32;
            is_planted.set(is_planted.get() || slot.0 != wrong);
            slot.0 = wrong;
        }
        self.queue.push_back(Launched { batch, pages });
        self.num_launched += 1;
        assert!(self.queue.len() <= 2, "at most one batch ahead");
        Ok(self.num_launched - 1)
    }

    fn wait(&mut self, handle: Self::Handle) -> Result<Vec<TokenId>, Self::Error> {
        while self.results.len() <= handle {
            let launched = self.queue.pop_front().expect("the handle of a launched batch");
            self.run(&launched);
        }
        Ok(self.results[handle].take().expect("a handle is waited for once"))
    }
}
