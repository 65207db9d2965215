//! The K/V pool with the backend that reads it: turns a scheduler's batch into
//! the step that a model sees.
//!
//! Upstream: `sglang/srt/model_executor/forward_batch_info.py` (`init_new`).

use std::{cell::RefCell, rc::Rc};

use attention::{
    AttentionBackend, AttentionShape, BatchInputs, Extent, ForwardBatch, ForwardMode, KvPool,
    KvPoolConfig,
};
use mem_cache::PageTables;
use mlx::{Array, Result};
use scheduler::ScheduleBatch;
use types::TokenId;

use crate::EngineError;

/// The pool, and how to make it anew.
pub(crate) struct Kv {
    layers: Vec<AttentionShape>,
    config: KvPoolConfig,
    backend: Rc<dyn AttentionBackend>,
    pool: Rc<RefCell<KvPool>>,
    /// Sizes that decode batches are padded to, ascending.
    row_buckets: Vec<usize>,
}

impl Kv {
    /// Allocates the pool for a model with these layers.
    pub(crate) fn new(
        layers: Vec<AttentionShape>,
        (prefill, decode): (&str, &str),
        config: KvPoolConfig,
        row_buckets: Vec<usize>,
    ) -> std::result::Result<Self, EngineError> {
        let backend = attention::build(prefill, decode, &layers)?;
        let pool = Rc::new(RefCell::new(KvPool::new(&layers, &config)?));
        Ok(Self { layers, config, backend, pool, row_buckets })
    }

    /// Bytes of the pool.
    pub(crate) fn nbytes(&self) -> usize {
        self.pool.borrow().nbytes()
    }

    /// Sizes that decode batches are padded to.
    pub(crate) fn row_buckets(&self) -> &[usize] {
        &self.row_buckets
    }

    /// Whether a step may be handed over while the one before it runs.
    pub(crate) fn writes_in_place(&self) -> bool {
        self.backend.writes_in_place()
    }

    /// Puts the writes of later steps after the step that gives `ids`. What it
    /// gives must be evaluated with them. On the CPU, where one operation runs
    /// after the other, there is no need.
    pub(crate) fn fence(&self, ids: &Array) -> Result<Option<Array>> {
        self.backend.pads_rows().then(|| self.pool.borrow_mut().fence(ids)).transpose()
    }

    /// Throws the pool's contents away. The old pool goes first: there is no
    /// room for two.
    pub(crate) fn reset(&mut self) -> std::result::Result<(), attention::AttentionError> {
        let nothing = KvPoolConfig { num_pages: 0, ..self.config };
        self.pool = Rc::new(RefCell::new(KvPool::new(&[], &nothing)?));
        self.pool = Rc::new(RefCell::new(KvPool::new(&self.layers, &self.config)?));
        Ok(())
    }

    /// Rows of the step that runs `batch`: decode batches are padded to a size
    /// that the device likes, if the backend can.
    pub(crate) fn num_rows(&self, batch: &ScheduleBatch) -> usize {
        let num_tokens = batch.num_tokens();
        if batch.mode == scheduler::ForwardMode::Extend || !self.backend.pads_rows() {
            return num_tokens;
        }
        let bucket = self.row_buckets.iter().copied().find(|&bucket| bucket >= num_tokens);
        bucket.unwrap_or(num_tokens.next_multiple_of(8))
    }

    /// A scheduler's batch as the model sees it, with as many rows as
    /// `input_ids`. A batch without sampled rows gets one anyway, the last: its
    /// logits tell when the batch is done.
    pub(crate) fn forward_batch(
        &self,
        batch: &ScheduleBatch,
        tables: &PageTables,
        input_ids: Array,
    ) -> Result<ForwardBatch> {
        let num_rows = input_ids.dim(0);
        let mut start = 0;
        let mut extents = Vec::with_capacity(batch.rows.len());
        let mut sampled_rows = Vec::with_capacity(batch.rows.len());
        for row in &batch.rows {
            let (len, prefix_len) = (row.extend_len, row.prefix_len);
            let num_pages = (prefix_len + len).div_ceil(self.config.page_size);
            let pages = &tables.pages(row.table_row)[..num_pages];
            let pages = pages.iter().map(|page| page.0).collect();
            extents.push(Extent { start, len, prefix_len, pages });
            start += len;
            if row.sampled {
                sampled_rows.push(start as i32 - 1);
            }
        }
        if sampled_rows.is_empty() {
            sampled_rows.push(start as i32 - 1);
        }
        // The logits of padding cost less than leaving them out.
        sampled_rows.extend(start as i32..num_rows as i32);
        let mut positions: Vec<i32> =
            batch.positions.iter().map(|&position| position as i32).collect();
        positions.resize(num_rows, 0);
        let mut out_cache_loc: Vec<i32> =
            batch.out_cache_loc.iter().map(|slot| slot.0 as i32).collect();
        out_cache_loc.resize(num_rows, -1);
        self.step(BatchInputs {
            mode: match batch.mode {
                scheduler::ForwardMode::Extend => ForwardMode::Extend,
                scheduler::ForwardMode::Decode => ForwardMode::Decode,
            },
            input_ids,
            positions,
            out_cache_loc,
            extents,
            sampled_rows,
        })
    }

    /// A prompt alone in the pool, from its first page on, every row sampled.
    pub(crate) fn prompt_batch(&self, prompt: &[TokenId]) -> Result<ForwardBatch> {
        let ids: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
        let rows: Vec<i32> = (0..prompt.len() as i32).collect();
        let pages = (0..prompt.len().div_ceil(self.config.page_size) as u32).collect();
        self.step(BatchInputs {
            mode: ForwardMode::Extend,
            input_ids: Array::from_slice(&ids, &[ids.len()])?,
            positions: rows.clone(),
            out_cache_loc: rows.clone(),
            extents: vec![Extent { start: 0, len: prompt.len(), prefix_len: 0, pages }],
            sampled_rows: rows,
        })
    }

    fn step(&self, inputs: BatchInputs) -> Result<ForwardBatch> {
        ForwardBatch::new(inputs, Rc::clone(&self.backend), Rc::clone(&self.pool))
    }
}
