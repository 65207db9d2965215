//! One step as the model sees it: flat tokens of all requests, end to end.
//!
//! ```text
//!            |<- extents[0] ->|<-- extents[1] -->|  ...
//! input_ids  [ t t t t t t t t|t t t t t t t t t | .. ]   [num_tokens]
//! ```
//!
//! There is no batch axis and no padding of sequences: matmuls get
//! `[num_tokens, hidden]`, and only the attention backend looks at extents.
//!
//! Upstream: `sglang/srt/model_executor/forward_batch_info.py`.

use std::{cell::RefCell, rc::Rc};

use mlx::{Array, Result};

use kernels::cpu::recurrent::StatePlan;

use crate::{AttentionBackend, ForwardMetadata, KvPool, LayoutLayers, StateStep, StepLayout};

/// The kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardMode {
    /// Prompts, or chunks of them, over a cached prefix.
    Extend,
    /// One token for each request.
    Decode,
}

/// One request's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Row of its first token.
    pub start: usize,
    /// Its tokens in this step; 1 if the mode is decode.
    pub len: usize,
    /// Tokens before this step's, in the pool already.
    pub prefix_len: usize,
    /// Pages that hold the whole sequence, this step's tokens included, in
    /// order. The last one may be partly filled; pages beyond are ignored.
    pub pages: Vec<u32>,
}

impl Extent {
    /// Tokens of the sequence after this step.
    pub fn seq_len(&self) -> usize {
        self.prefix_len + self.len
    }
}

/// A step as the layers with a window see it, where they have pages of their own.
///
/// ```text
/// tokens    0 .. |page|page|page|page|page|      of the whole sequence
/// extents        |    0 .. prefix_len|len |      from the first page that is kept
/// window                     |<----->|
/// ```
#[derive(Debug, Clone)]
pub struct WindowInputs {
    /// `[num_tokens]`, as [`BatchInputs::out_cache_loc`].
    pub out_cache_loc: Vec<i32>,
    /// Those of [`BatchInputs::extents`], with window pages. `prefix_len` counts from the
    /// first of them on; it holds the window of the request's first new token.
    pub extents: Vec<Extent>,
}

/// What the host knows of a step.
#[derive(Debug, Clone)]
pub struct BatchInputs {
    /// The kind of the step.
    pub mode: ForwardMode,
    /// `[num_tokens]` int32. An array, since the ids of a decode step may still
    /// be on the device.
    pub input_ids: Array,
    /// `[num_tokens]`, from 0 at the start of each request.
    pub positions: Vec<i32>,
    /// `[num_tokens]`, the slot that each token's K/V goes to. No slot twice;
    /// -1 for rows beyond the extents, if the backend pads rows.
    pub out_cache_loc: Vec<i32>,
    /// One for each request, in the order of their rows, without gaps.
    pub extents: Vec<Extent>,
    /// If the pool has window pages.
    pub windows: Option<WindowInputs>,
    /// `[num_sampled]`, the rows whose logits are wanted.
    pub sampled_rows: Vec<i32>,
    /// For a model with recurrent layers.
    pub states: Option<StatePlan>,
    /// `[num_tokens]`, for an encoder: 1 in the second of two texts, else 0. `None`: all 0.
    pub token_types: Option<Vec<i32>>,
}

/// [`WindowInputs`] as tensors.
pub struct WindowStep {
    /// `[num_tokens]` int32.
    pub out_cache_loc: Array,
    /// One for each request.
    pub extents: Vec<Extent>,
    /// What the backend worked out once for all layers with a window.
    pub metadata: ForwardMetadata,
}

/// One step as tensors, with the pool that it reads and writes.
pub struct ForwardBatch {
    /// The kind of the step.
    pub mode: ForwardMode,
    /// `[num_tokens]` int32.
    pub input_ids: Array,
    /// `[num_tokens]` int32.
    pub positions: Array,
    /// `[num_tokens]` int32.
    pub out_cache_loc: Array,
    /// One for each request.
    pub extents: Vec<Extent>,
    /// `[num_sampled]` int32; `None` if every row is sampled, in order.
    pub sampled_rows: Option<Array>,
    /// For a model with recurrent layers.
    pub states: Option<StateStep>,
    /// `[num_tokens]` int32, for an encoder; `None`: all 0.
    pub token_types: Option<Array>,
    /// For layers with a window; `None` if they use the pages of all others.
    pub windows: Option<WindowStep>,
    /// What the backend worked out once for all layers, or for all others.
    pub metadata: ForwardMetadata,
    /// Who computes attention.
    pub backend: Rc<dyn AttentionBackend>,
    /// Keys and values. Written while the graph of the step is built.
    pub kv_pool: Rc<RefCell<KvPool>>,
}

impl WindowStep {
    fn new(
        inputs: WindowInputs,
        step: &StepLayout<'_>,
        backend: &dyn AttentionBackend,
    ) -> Result<Self> {
        let WindowInputs { out_cache_loc, extents } = inputs;
        debug_assert_eq!(out_cache_loc.len(), step.num_tokens);
        debug_assert_eq!(extents.len(), step.extents.len());
        let layers = LayoutLayers::WithWindow;
        let layout = StepLayout { extents: &extents, layers, ..*step };
        let metadata = backend.init_forward_metadata(&layout)?;
        let out_cache_loc = Array::from_slice(&out_cache_loc, &[out_cache_loc.len()])?;
        Ok(Self { out_cache_loc, extents, metadata })
    }
}

impl ForwardBatch {
    /// Moves a step to the device and lets the backend prepare for it.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn new(
        inputs: BatchInputs,
        backend: Rc<dyn AttentionBackend>,
        kv_pool: Rc<RefCell<KvPool>>,
    ) -> Result<Self> {
        let num_tokens = inputs.positions.len();
        debug_assert_eq!(inputs.out_cache_loc.len(), num_tokens);
        let in_extents = inputs.extents.iter().map(|extent| extent.len).sum::<usize>();
        debug_assert!(in_extents == num_tokens || backend.pads_rows() && in_extents < num_tokens);
        let page_size = kv_pool.borrow().page_size();
        assert_eq!(inputs.windows.is_some(), kv_pool.borrow().has_window_pages());
        let (mode, extents) = (inputs.mode, &inputs.extents);
        let layers = match inputs.windows {
            None => LayoutLayers::All,
            Some(_) => LayoutLayers::WithoutWindow,
        };
        let step = StepLayout { mode, extents, num_tokens, page_size, layers };
        let metadata = backend.init_forward_metadata(&step)?;
        let int32 = |values: &[i32]| Array::from_slice(values, &[values.len()]);
        let every_row = inputs.sampled_rows.len() == num_tokens
            && (0..).zip(&inputs.sampled_rows).all(|(row, &sampled)| row == sampled);
        Ok(Self {
            mode: inputs.mode,
            positions: int32(&inputs.positions)?,
            out_cache_loc: int32(&inputs.out_cache_loc)?,
            sampled_rows: (!every_row).then(|| int32(&inputs.sampled_rows)).transpose()?,
            states: inputs.states.map(|plan| StateStep::new(plan, num_tokens)).transpose()?,
            token_types: inputs.token_types.map(|types| int32(&types)).transpose()?,
            windows: (inputs.windows)
                .map(|windows| WindowStep::new(windows, &step, backend.as_ref()))
                .transpose()?,
            input_ids: inputs.input_ids,
            extents: inputs.extents,
            metadata,
            backend,
            kv_pool,
        })
    }

    /// What a replay of this step is given, the chain of the pool last; `None` if
    /// its backend's work cannot be replayed.
    pub fn replay_inputs(&self) -> Option<Vec<Array>> {
        let tables = self.backend.replay_inputs(&self.metadata)?;
        let step = [&self.input_ids, &self.positions, &self.out_cache_loc];
        let states = self.states.iter().flat_map(StateStep::replay_inputs);
        let mut arrays: Vec<&Array> = step.into_iter().chain(tables).chain(states).collect();
        if let Some(windows) = &self.windows {
            arrays.push(&windows.out_cache_loc);
            arrays.extend(self.backend.replay_inputs(&windows.metadata)?);
        }
        let arrays = arrays.into_iter().cloned();
        Some(arrays.chain([self.chain()]).collect())
    }

    /// Comes after every use of the pool so far that MLX does not know of.
    pub fn chain(&self) -> Array {
        self.kv_pool.borrow().chain().clone()
    }

    /// Says that the pool was used, up to `chain`.
    pub fn set_chain(&self, chain: Array) {
        self.kv_pool.borrow_mut().set_chain(chain);
    }

    /// The rows that will be sampled: `[num_tokens, hidden]` to
    /// `[num_sampled, hidden]`. Call it before the vocabulary matmul.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn select_sampled(&self, hidden: &Array) -> Result<Array> {
        match &self.sampled_rows {
            Some(rows) => hidden.take(rows, 0),
            None => Ok(hidden.clone()),
        }
    }
}
