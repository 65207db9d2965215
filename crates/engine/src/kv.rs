//! The K/V pool with the backend that reads it: turns a scheduler's batch into
//! the step that a model sees.
//!
//! Upstream: `sglang/srt/model_executor/forward_batch_info.py` (`init_new`).

use std::{cell::RefCell, rc::Rc};

use attention::{
    AttentionBackend, AttentionError, AttentionShape, BatchInputs, Extent, ForwardBatch,
    ForwardMode, KvPool, KvPoolConfig, StatePlan, StateRow, StateShape, WindowInputs,
};
use mem_cache::PageTables;
use mlx::{Array, Dtype, Result};
use scheduler::{BatchRow, ScheduleBatch};
use types::{SlotId, TokenId};

use crate::EngineError;

/// States of recurrent layers: how many, of which shapes.
pub(crate) struct StatePool {
    pub(crate) layers: Vec<StateShape>,
    pub(crate) num_states: usize,
    /// What the model computes in.
    pub(crate) dtype: Dtype,
}

/// The pool, and how to make it anew.
pub(crate) struct Kv {
    layers: Vec<AttentionShape>,
    states: StatePool,
    config: KvPoolConfig,
    backend: Rc<dyn AttentionBackend>,
    pool: Rc<RefCell<KvPool>>,
    /// Sizes that decode batches are padded to, ascending.
    row_buckets: Vec<usize>,
    /// Tokens of the largest prefill that runs as a decode step.
    flat_rows: usize,
    #[cfg(test)]
    num_flat: std::cell::Cell<usize>,
    #[cfg(test)]
    num_mixed: std::cell::Cell<usize>,
}

/// Cached tokens that the rows of a flat step may read altogether: each reads its
/// request's prefix for itself. 16 new tokens after 8000.
const MAX_FLAT_CONTEXT: usize = 128 << 10;

/// A scheduler's batch as the model sees it.
pub(crate) struct Step {
    pub(crate) forward: ForwardBatch,
    /// `[num_sampled]` int32, the rows of the logits to sample from; `None`: all.
    pub(crate) sampled: Option<Array>,
    /// `[num_positions]` int32, the rows of the logits that tell how likely the prompts'
    /// own tokens were, request by request.
    pub(crate) inputs: Option<Array>,
}

/// The tokens of a batch that need logits.
#[derive(Default)]
struct Wanted {
    /// Index of each token that is followed by a sampled one, or whose output is pooled.
    sampled: Vec<i32>,
    /// Indices of the tokens with [`scheduler::InputLogprobs`].
    inputs: Vec<i32>,
}

impl Kv {
    /// Allocates the pool for a model with these layers.
    pub(crate) fn new(
        (layers, states): (Vec<AttentionShape>, StatePool),
        (prefill, decode): (&str, &str),
        config: KvPoolConfig,
        (row_buckets, flat_rows): (Vec<usize>, usize),
    ) -> std::result::Result<Self, EngineError> {
        let backend = attention::build(prefill, decode, &layers, config.dtype)?;
        let pool = Rc::new(RefCell::new(allocate(&layers, &states, &config)?));
        Ok(Self {
            layers,
            states,
            config,
            backend,
            pool,
            row_buckets,
            flat_rows,
            #[cfg(test)]
            num_flat: std::cell::Cell::default(),
            #[cfg(test)]
            num_mixed: std::cell::Cell::default(),
        })
    }

    /// Bytes of the pool.
    pub(crate) fn nbytes(&self) -> usize {
        self.pool.borrow().nbytes()
    }

    /// Sizes that decode batches are padded to.
    pub(crate) fn row_buckets(&self) -> &[usize] {
        &self.row_buckets
    }

    /// Tokens of the largest prefill that runs as a decode step from now on.
    pub(crate) fn set_flat_rows(&mut self, flat_rows: usize) {
        self.flat_rows = flat_rows;
    }

    /// Flat steps so far.
    #[cfg(test)]
    pub(crate) fn num_flat(&self) -> usize {
        self.num_flat.get()
    }

    /// Prefill steps so far that took running requests along.
    #[cfg(test)]
    pub(crate) fn num_mixed(&self) -> usize {
        self.num_mixed.get()
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
    pub(crate) fn reset(&mut self) -> std::result::Result<(), AttentionError> {
        let nothing = KvPoolConfig { num_pages: 0, ..self.config };
        self.pool = Rc::new(RefCell::new(KvPool::new(&[], &nothing)?));
        let pool = allocate(&self.layers, &self.states, &self.config)?;
        self.pool = Rc::new(RefCell::new(pool));
        Ok(())
    }

    /// Whether a prefill runs as a decode step with a row for each token: a few tokens
    /// after a cached prefix, as an agent's next turn brings, cost no more than a step
    /// whose graph is there already. A token's K and V are written before any row of
    /// its layer is attended, so rows may belong to one request.
    fn is_flat(&self, batch: &ScheduleBatch) -> bool {
        let context =
            |row: &BatchRow| row.extend_len * (row.prefix_len + row.extend_len.div_ceil(2));
        batch.mode == scheduler::ForwardMode::Extend
            && batch.num_tokens() <= self.flat_rows
            && self.backend.writes_in_place()
            // A state goes from token to token.
            && self.states.layers.is_empty()
            && batch.rows.iter().map(context).sum::<usize>() <= MAX_FLAT_CONTEXT
    }

    /// Rows of the step that runs `batch`: decode steps are padded to a size that the
    /// device likes, if the backend can.
    pub(crate) fn num_rows(&self, batch: &ScheduleBatch) -> usize {
        let num_tokens = batch.num_tokens();
        let is_decode = batch.mode == scheduler::ForwardMode::Decode || self.is_flat(batch);
        if !is_decode || !self.backend.pads_rows() {
            return num_tokens;
        }
        let bucket = self.row_buckets.iter().copied().find(|&bucket| bucket >= num_tokens);
        bucket.unwrap_or(num_tokens.next_multiple_of(8))
    }

    /// A scheduler's batch as the model sees it, with as many rows as
    /// `input_ids`. A batch without sampled rows gets one anyway, the last: its
    /// logits tell when the batch is done.
    pub(crate) fn step(
        &self,
        batch: &ScheduleBatch,
        tables: &PageTables,
        input_ids: Array,
    ) -> Result<Step> {
        let num_rows = input_ids.dim(0);
        let is_flat = self.is_flat(batch);
        #[cfg(test)]
        self.num_mixed.set(self.num_mixed.get() + usize::from(batch.num_decode_rows > 0));
        let parts = parts(batch, is_flat);
        let Wanted { sampled, inputs } = Wanted::new(batch);
        let indices = |rows: &[i32]| Array::from_slice(rows, &[rows.len()]);
        let input_rows = (!inputs.is_empty()).then_some(&inputs);
        let (sampled_rows, sampled, inputs) = if is_flat {
            #[cfg(test)]
            self.num_flat.set(self.num_flat.get() + 1);
            let inputs = input_rows.map(|rows| indices(rows)).transpose()?;
            ((0..num_rows as i32).collect(), Some(indices(&sampled)?), inputs)
        } else if let Some(rows) = input_rows {
            let places: Vec<i32> = (0..(rows.len() + sampled.len()) as i32).collect();
            let (inputs, samples) = places.split_at(rows.len());
            ([rows.as_slice(), &sampled].concat(), Some(indices(samples)?), Some(indices(inputs)?))
        } else {
            // The logits of padding cost less than leaving them out.
            let padding = batch.num_tokens() as i32..num_rows as i32;
            (sampled.into_iter().chain(padding).collect(), None, None)
        };
        let mut positions: Vec<i32> =
            batch.positions.iter().map(|&position| position as i32).collect();
        positions.resize(num_rows, 0);
        let slots = |slots: &[SlotId]| {
            let mut slots: Vec<i32> = slots.iter().map(|slot| slot.0 as i32).collect();
            slots.resize(num_rows, -1);
            slots
        };
        let windows = self.config.num_window_pages.map(|_| WindowInputs {
            out_cache_loc: slots(&batch.window_out_cache_loc),
            extents: parts.iter().map(|part| self.window_extent(part, tables)).collect(),
        });
        let mode = match batch.mode {
            scheduler::ForwardMode::Extend if !is_flat => ForwardMode::Extend,
            _ => ForwardMode::Decode,
        };
        let states = (!self.states.layers.is_empty()).then(|| state_plan(batch));
        let batch_inputs = BatchInputs {
            mode,
            input_ids,
            positions,
            out_cache_loc: slots(&batch.out_cache_loc),
            extents: parts.iter().map(|part| self.extent(part, tables)).collect(),
            windows,
            sampled_rows,
            states,
            token_types: token_types(batch),
        };
        Ok(Step { forward: self.forward_batch(batch_inputs)?, sampled, inputs })
    }

    fn extent(&self, part: &Part<'_>, tables: &PageTables) -> Extent {
        let end = part.num_pages(self.config.page_size);
        let pages = tables.pages(part.row.table_row)[..end].iter().map(|page| page.0).collect();
        let Part { start, len, prefix_len, .. } = *part;
        Extent { start, len, prefix_len, pages }
    }

    /// The same from the row's first page with a window page on.
    fn window_extent(&self, part: &Part<'_>, tables: &PageTables) -> Extent {
        let page_size = self.config.page_size;
        let first = part.row.first_window_page.expect("the scheduler plans window pages");
        let pages = tables.window_pages(part.row.table_row, first..part.num_pages(page_size));
        Extent {
            start: part.start,
            len: part.len,
            prefix_len: part.prefix_len - first * page_size,
            pages: pages.map(|page| page.0).collect(),
        }
    }

    /// A prompt alone in the pool, from its first page on, every row sampled.
    pub(crate) fn prompt_batch(&self, prompt: &[TokenId]) -> Result<ForwardBatch> {
        let ids: Vec<i32> = prompt.iter().map(|&id| id as i32).collect();
        let rows: Vec<i32> = (0..prompt.len() as i32).collect();
        let pages = (0..prompt.len().div_ceil(self.config.page_size) as u32).collect();
        self.forward_batch(BatchInputs {
            mode: ForwardMode::Extend,
            input_ids: Array::from_slice(&ids, &[ids.len()])?,
            positions: rows.clone(),
            out_cache_loc: rows.clone(),
            extents: vec![Extent { start: 0, len: prompt.len(), prefix_len: 0, pages }],
            // Whoever runs a prompt alone has a pool without window pages.
            windows: None,
            sampled_rows: rows,
            states: (!self.states.layers.is_empty()).then(|| StatePlan {
                rows: vec![StateRow { start: 0, len: prompt.len(), from: None, to: 0 }],
                saves: Vec::new(),
            }),
            token_types: None,
        })
    }

    fn forward_batch(&self, inputs: BatchInputs) -> Result<ForwardBatch> {
        ForwardBatch::new(inputs, Rc::clone(&self.backend), Rc::clone(&self.pool))
    }
}

fn allocate(
    layers: &[AttentionShape],
    states: &StatePool,
    config: &KvPoolConfig,
) -> std::result::Result<KvPool, AttentionError> {
    let sizes = (states.num_states, states.dtype);
    KvPool::new(layers, config)?.with_states(&states.layers, sizes, config)
}

/// Tokens of a request that become one extent.
struct Part<'a> {
    row: &'a BatchRow,
    start: usize,
    len: usize,
    prefix_len: usize,
}

impl Part<'_> {
    /// Of the sequence up to its last token.
    fn num_pages(&self, page_size: usize) -> usize {
        (self.prefix_len + self.len).div_ceil(page_size)
    }
}

/// Each request's tokens, or in a flat step each token.
fn parts(batch: &ScheduleBatch, is_flat: bool) -> Vec<Part<'_>> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(batch.rows.len());
    for row in &batch.rows {
        let BatchRow { prefix_len, extend_len, .. } = *row;
        let len = if is_flat { 1 } else { extend_len };
        parts.extend((0..extend_len).step_by(len).map(|token| Part {
            row,
            start: start + token,
            len,
            prefix_len: prefix_len + token,
        }));
        start += extend_len;
    }
    parts
}

impl Wanted {
    /// The last tokens of the requests that are sampled and those that are pooled, without one
    /// the last token of all;
    /// and those of prompts whose log-probabilities are wanted.
    fn new(batch: &ScheduleBatch) -> Self {
        let mut start = 0;
        let mut wanted = Self::default();
        for row in &batch.rows {
            if let Some(logprobs) = &row.input_logprobs {
                let first = (start + logprobs.first) as i32;
                wanted.inputs.extend(first..first + logprobs.targets.len() as i32);
            }
            start += row.extend_len;
            if row.sampled {
                wanted.sampled.push(start as i32 - 1);
            }
            let first = (start - row.extend_len) as i32;
            let pooled = row.pooled.iter().cloned().flatten();
            wanted.sampled.extend(pooled.map(|token| first + token as i32));
        }
        if wanted.sampled.is_empty() {
            wanted.sampled.push(start as i32 - 1);
        }
        wanted
    }
}

/// Which tokens belong to the second of two texts; `None`: none do.
fn token_types(batch: &ScheduleBatch) -> Option<Vec<i32>> {
    if batch.rows.iter().all(|row| row.second_text.is_none()) {
        return None;
    }
    let of_row = |row: &BatchRow| {
        let second = row.second_text.unwrap_or(usize::MAX);
        let tokens = row.prefix_len..row.prefix_len + row.extend_len;
        tokens.map(move |token| i32::from(token >= second))
    };
    Some(batch.rows.iter().flat_map(of_row).collect())
}

/// Which states the rows of a batch read and write.
fn state_plan(batch: &ScheduleBatch) -> StatePlan {
    let mut start = 0;
    let mut rows = Vec::with_capacity(batch.rows.len());
    for row in &batch.rows {
        let flow = row.state.expect("rows of a model with recurrent layers have states");
        let from = flow.from.map(|state| state.0 as usize);
        let (len, to) = (row.extend_len, flow.to.0 as usize);
        rows.push(StateRow { start, len, from, to });
        start += len;
    }
    let saves = batch.snapshots.iter().map(|copy| (copy.token, copy.state.0 as usize));
    StatePlan { rows, saves: saves.collect() }
}
