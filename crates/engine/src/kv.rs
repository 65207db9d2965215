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
}

impl Kv {
    /// Allocates the pool for a model with these layers.
    pub(crate) fn new(
        layers: Vec<AttentionShape>,
        backend: &str,
        config: KvPoolConfig,
    ) -> std::result::Result<Self, EngineError> {
        let backend = (attention::find(backend, &layers)?.new)(&layers);
        let pool = Rc::new(RefCell::new(KvPool::new(&layers, &config)?));
        Ok(Self { layers, config, backend, pool })
    }

    /// Bytes of the pool.
    pub(crate) fn nbytes(&self) -> usize {
        self.pool.borrow().nbytes()
    }

    /// Whether a step may be handed over while the one before it runs.
    pub(crate) fn writes_in_place(&self) -> bool {
        self.backend.writes_in_place()
    }

    /// Throws the pool's contents away. The old pool goes first: there is no
    /// room for two.
    pub(crate) fn reset(&mut self) -> std::result::Result<(), attention::AttentionError> {
        let nothing = KvPoolConfig { num_pages: 0, ..self.config };
        self.pool = Rc::new(RefCell::new(KvPool::new(&[], &nothing)?));
        self.pool = Rc::new(RefCell::new(KvPool::new(&self.layers, &self.config)?));
        Ok(())
    }

    /// A scheduler's batch as the model sees it. A batch without sampled rows
    /// gets one anyway, the last: its logits tell when the batch is done.
    pub(crate) fn forward_batch(
        &self,
        batch: &ScheduleBatch,
        tables: &PageTables,
        input_ids: Array,
    ) -> Result<ForwardBatch> {
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
        self.step(BatchInputs {
            mode: match batch.mode {
                scheduler::ForwardMode::Extend => ForwardMode::Extend,
                scheduler::ForwardMode::Decode => ForwardMode::Decode,
            },
            input_ids,
            positions: batch.positions.iter().map(|&position| position as i32).collect(),
            out_cache_loc: batch.out_cache_loc.iter().map(|slot| slot.0 as i32).collect(),
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
