//! Layers that remember a sequence in a state of fixed size: convolution over time and
//! linear attention. Which states a step reads and writes is the scheduler's matter;
//! they live in the [`KvPool`](crate::KvPool), a slot for each request and each
//! snapshot.
//!
//! Upstream: `sglang/srt/layers/attention/linear/`, `MambaPool` in
//! `sglang/srt/mem_cache/memory_pool.py`.

use std::sync::Arc;

use kernels::{
    ConvInputs, ConvSpec, KernelError, Kernels, ScanInputs, ScanSpec, StateArrays, causal_conv,
    cpu::recurrent::{self, StatePlan, StateRow},
    recurrent_scan,
};
use mlx::{
    Array, Dtype, Error, Result,
    device::{self, DeviceKind},
};

use crate::{AttentionError, ForwardBatch, KvPoolConfig};

/// What one recurrent layer remembers of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateShape {
    /// Index of its states in the [`KvPool`](crate::KvPool).
    pub state_id: usize,
    /// Channels of its convolution.
    pub channels: usize,
    /// Tokens that an output of the convolution depends on.
    pub taps: usize,
    /// Matrices of its linear attention: heads, width of a value, width of a key.
    pub scan: Option<[usize; 3]>,
}

impl StateShape {
    /// Bytes of one state; `itemsize` is that of the model's elements.
    pub fn nbytes(&self, itemsize: usize) -> usize {
        let scan = self.scan.map_or(0, |dims| dims.iter().product());
        (self.taps - 1) * self.channels * itemsize + scan * Dtype::Float32.size_in_bytes()
    }
}

/// The states of one layer.
pub(crate) struct LayerStates {
    /// `[num_states, taps - 1, channels]`.
    conv: Array,
    /// `[num_states, heads, value_dim, key_dim]` f32.
    scan: Option<Array>,
}

impl LayerStates {
    pub(crate) fn new(
        shape: &StateShape,
        num_states: usize,
        dtype: Dtype,
        config: &KvPoolConfig,
    ) -> std::result::Result<Self, AttentionError> {
        let zeros = |dims: &[usize], dtype: Dtype| {
            let dims: Vec<usize> = [&[num_states], dims].concat();
            let bytes = dims.iter().product::<usize>() * dtype.size_in_bytes();
            if let Some(limit) = config.max_buffer_bytes.filter(|&limit| bytes > limit) {
                return Err(AttentionError::StatesTooLarge { num_states, bytes, limit });
            }
            let zeros = Array::zeros(&dims, dtype)?;
            zeros.eval()?;
            Ok(zeros)
        };
        Ok(Self {
            conv: zeros(&[shape.taps - 1, shape.channels], dtype)?,
            scan: shape.scan.map(|dims| zeros(&dims, Dtype::Float32)).transpose()?,
        })
    }

    fn matrices(&self) -> &Array {
        self.scan.as_ref().expect("a layer whose states have matrices")
    }

    pub(crate) fn nbytes(&self) -> usize {
        self.conv.nbytes() + self.scan.as_ref().map_or(0, Array::nbytes)
    }
}

/// Which states the rows of a step read and write.
pub struct StateStep {
    plan: Arc<StatePlan>,
    /// On a GPU: `[num_rows, 4]` and `[num_tokens]`, see [`StateArrays`].
    arrays: Option<(Array, Array)>,
}

impl StateStep {
    /// For a step of `num_tokens` rows; those beyond the plan's are padding.
    pub(crate) fn new(plan: StatePlan, num_tokens: usize) -> Result<Self> {
        let arrays = match Kernels::here() {
            Some(_) => Some(arrays(&plan, num_tokens)?),
            None => None,
        };
        Ok(Self { plan: Arc::new(plan), arrays })
    }

    pub(crate) fn replay_inputs(&self) -> impl Iterator<Item = &Array> {
        self.arrays.iter().flat_map(|(rows, saves)| [rows, saves])
    }
}

fn arrays(plan: &StatePlan, num_tokens: usize) -> Result<(Array, Array)> {
    let id = |state: Option<usize>| state.map_or(-1, |state| state as i32);
    let of = |row: &StateRow| [row.start as i32, row.len as i32, id(row.from), row.to as i32];
    let mut rows: Vec<i32> = plan.rows.iter().flat_map(of).collect();
    let first = plan.rows.last().map_or(0, |row| row.start + row.len);
    // Padding is computed, from zeros, and remembered by nobody.
    rows.extend((first..num_tokens).flat_map(|row| [row as i32, 1, -1, -1]));
    let mut saves = vec![-1; num_tokens];
    plan.saves.iter().for_each(|&(token, state)| saves[token] = state as i32);
    Ok((Array::from_slice(&rows, &[rows.len() / 4, 4])?, Array::from_slice(&saves, &[num_tokens])?))
}

/// Runs one of the two where a layer's states are; on a GPU after all earlier use of them.
fn with_states(
    batch: &ForwardBatch,
    state_id: usize,
    on_cpu: impl FnOnce(&LayerStates, &Arc<StatePlan>) -> Result<Array>,
    on_gpu: impl FnOnce(
        &Kernels,
        &LayerStates,
        &StateArrays<'_>,
    ) -> std::result::Result<(Array, Array), KernelError>,
) -> Result<Array> {
    let step = batch.states.as_ref().expect("a step of a model with recurrent layers has states");
    let mut pool = batch.kv_pool.borrow_mut();
    if device::default()? == DeviceKind::Cpu {
        return on_cpu(pool.states(state_id), &step.plan);
    }
    let (Some(kernels), Some((rows, saves))) = (Kernels::here(), &step.arrays) else {
        let message = "recurrent layers need the kernels that this GPU does not run".to_owned();
        return Err(Error { op: "recurrent", message });
    };
    let states = StateArrays { rows, saves, after: pool.chain() };
    let (out, chain) = on_gpu(&kernels, pool.states(state_id), &states)?;
    pool.set_chain(chain);
    Ok(out)
}

/// Convolution over time of one layer, each channel by itself.
pub struct CausalConv {
    state_id: usize,
    /// `[channels, taps]`.
    weight: Array,
    /// `[channels]`.
    bias: Option<Array>,
    silu: bool,
}

impl CausalConv {
    /// `weight` is `[channels, taps]`, the last tap the token's own; `silu` if the result
    /// goes through it.
    pub fn new(state_id: usize, weight: Array, bias: Option<Array>, silu: bool) -> Self {
        Self { state_id, weight, bias, silu }
    }

    /// `[num_tokens, channels]` to as much. Leaves the state for the tokens to come.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array, batch: &ForwardBatch) -> Result<Array> {
        let (channels, taps) = (self.weight.dim(0), self.weight.dim(1));
        let has_bias = self.bias.is_some();
        let spec = ConvSpec { channels, taps, has_bias, silu: self.silu, dtype: x.dtype() };
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        with_states(
            batch,
            self.state_id,
            |layer, plan| {
                recurrent::causal_conv(
                    &spec,
                    plan,
                    &ConvInputs { x, weight, bias, pool: &layer.conv },
                )
            },
            |kernels, layer, states| {
                causal_conv(
                    kernels,
                    &spec,
                    &ConvInputs { x, weight, bias, pool: &layer.conv },
                    states,
                )
            },
        )
    }
}

/// What linear attention takes, `[num_tokens, ..]` each.
#[derive(Clone, Copy)]
pub struct ScanRows<'a> {
    /// `[.., key_heads, key_dim]`, scaled.
    pub q: &'a Array,
    /// As `q`.
    pub k: &'a Array,
    /// `[.., value_heads, value_dim]`.
    pub v: &'a Array,
    /// `[.., value_heads]` f32, or `[.., value_heads, key_dim]`: what is kept.
    pub decay: &'a Array,
    /// `[.., value_heads]` f32: how much of what is known of a key is replaced; `None`
    /// adds to it instead.
    pub beta: Option<&'a Array>,
}

/// Linear attention of one layer, see [`kernels::recurrent_scan`].
pub struct RecurrentScan {
    state_id: usize,
}

impl RecurrentScan {
    /// The layer of this state.
    pub fn new(state_id: usize) -> Self {
        Self { state_id }
    }

    /// Returns `[num_tokens, value_heads, value_dim]`. Leaves the state for the tokens to
    /// come.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, rows: &ScanRows<'_>, batch: &ForwardBatch) -> Result<Array> {
        let ScanRows { q, k, v, decay, beta } = *rows;
        let spec = ScanSpec {
            key_heads: q.dim(1),
            value_heads: v.dim(1),
            key_dim: q.dim(2),
            value_dim: v.dim(2),
            delta: beta.is_some(),
            column_decay: decay.ndim() == 3,
            dtype: q.dtype(),
        };
        with_states(
            batch,
            self.state_id,
            |layer, plan| {
                let inputs = ScanInputs { q, k, v, decay, beta, pool: layer.matrices() };
                recurrent::recurrent_scan(&spec, plan, &inputs)
            },
            |kernels, layer, states| {
                let inputs = ScanInputs { q, k, v, decay, beta, pool: layer.matrices() };
                recurrent_scan(kernels, &spec, &inputs, states)
            },
        )
    }
}
