//! Recurrent layers on the CPU device: convolution over time and linear attention, as
//! [`crate::causal_conv`] and [`crate::recurrent_scan`] on a GPU.
//!
//! A request's state stays where it will be left while its tokens go by: heads, or
//! runs of channels, are tasks of their own.

use std::sync::Arc;

use mlx::{
    Array, Result,
    cpu_kernel::{CpuKernel, Operands, Output},
};

use super::{
    chain::node_in_place,
    floats::{to_f32, with_f32_output},
    lanes::{LANES, Vector, WithVector, with_best},
    nodes::values_mut,
    parallel::parallel_for,
    values::{SharedOut, ValuesMut},
};
use crate::{ConvInputs, ConvSpec, ScanInputs, ScanSpec};

#[cfg(test)]
mod tests;

/// One request's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateRow {
    /// Its first token.
    pub start: usize,
    /// Its tokens.
    pub len: usize,
    /// The state to begin with; `None`: zeros.
    pub from: Option<usize>,
    /// The state to leave; may be `from`.
    pub to: usize,
}

/// Which states the requests of a step read and write, for all layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatePlan {
    /// One for each request.
    pub rows: Vec<StateRow>,
    /// Tokens after which a copy of the state goes to another one, ascending.
    pub saves: Vec<(usize, usize)>,
}

impl StatePlan {
    fn saves_of(&self, row: &StateRow) -> &[(usize, usize)] {
        let first = self.saves.partition_point(|&(token, _)| token < row.start);
        let end = self.saves.partition_point(|&(token, _)| token < row.start + row.len);
        &self.saves[first..end]
    }
}

/// Floats of which tasks take different ones.
#[derive(Clone, Copy)]
struct Shared(*mut f32, usize);

// SAFETY: tasks take different elements.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(elements: &mut [f32]) -> Self {
        Self(elements.as_mut_ptr(), elements.len())
    }

    /// # Safety
    /// Nobody else has these elements now, and they outlive `'a`.
    unsafe fn take<'a>(self, first: usize, count: usize) -> &'a mut [f32] {
        assert!(first + count <= self.1, "elements that are there");
        // SAFETY: inside the slice; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(first), count) }
    }
}

/// A convolution over time. Returns `[num_tokens, channels]` in the type of `x`. The pool
/// is under the rules of [`super::attention::paged_attention`].
///
/// # Errors
/// Those of MLX. What does not fit fails when the node is evaluated.
pub fn causal_conv(
    spec: &ConvSpec,
    plan: &Arc<StatePlan>,
    inputs: &ConvInputs<'_>,
) -> Result<Array> {
    let kernel = Arc::new(Conv { spec: *spec, plan: Arc::clone(plan) });
    let shape = inputs.x.shape();
    let mut arrays = vec![inputs.x, inputs.weight];
    arrays.extend(inputs.bias);
    // SAFETY: as for `paged_attention`.
    let out = unsafe {
        node_in_place(kernel, &arrays, &[inputs.pool], &[(&shape[..], inputs.x.dtype())])
    };
    Ok(out?.remove(0))
}

struct Conv {
    spec: ConvSpec,
    plan: Arc<StatePlan>,
}

/// Channels of a task.
const CHANNEL_RUN: usize = 256;

impl CpuKernel for Conv {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut in_place, mut outputs } = operands;
        let x = to_f32(inputs[0]);
        let weight = to_f32(inputs[1]);
        let bias = inputs.get(2).map(|&bias| to_f32(bias));
        let bias = bias.as_deref();
        let mut pool = values_mut(&mut in_place[0]);
        with_f32_output(&mut outputs[0], |out| {
            self.over(ConvArrays { x: &x, weight: &weight, bias }, out, &mut pool);
        });
    }
}

#[derive(Clone, Copy)]
struct ConvArrays<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
}

impl Conv {
    fn over(&self, arrays: ConvArrays<'_>, out: &mut [f32], pool: &mut ValuesMut<'_>) {
        let channels = self.spec.channels;
        assert_eq!(arrays.x.len(), out.len(), "rows of the result");
        let num_states = pool.len() / (channels * (self.spec.taps - 1));
        let ids = self.plan.rows.iter().flat_map(|row| row.from.into_iter().chain([row.to]));
        let mut ids = ids.chain(self.plan.saves.iter().map(|&(_, id)| id));
        assert!(ids.all(|id| id < num_states), "a state of the pool");
        let runs = channels.div_ceil(CHANNEL_RUN);
        let (out, pool) = (Shared::new(out), pool.shared());
        parallel_for(self.plan.rows.len() * runs, |task| {
            let first = task % runs * CHANNEL_RUN;
            let run = first..(first + CHANNEL_RUN).min(channels);
            self.one(&self.plan.rows[task / runs], run, arrays, (out, pool));
        });
    }

    /// A run of channels of one request.
    fn one(
        &self,
        row: &StateRow,
        run: std::ops::Range<usize>,
        ConvArrays { x, weight, bias }: ConvArrays<'_>,
        (out, pool): (Shared, SharedOut),
    ) {
        let ConvSpec { channels, taps, silu, .. } = self.spec;
        let width = run.len();
        let place = |id: usize, tap: usize| (id * (taps - 1) + tap) * channels + run.start;
        // The inputs seen last, oldest first, then the one that is on.
        let mut seen = vec![0.0; taps * width];
        if let Some(from) = row.from {
            for (tap, seen) in seen.chunks_mut(width).take(taps - 1).enumerate() {
                // SAFETY: inside the pool, as asserted, and no other task has these
                // channels of this request, or of a state that it reads: a state is
                // written for one request, and read by no other then.
                unsafe { pool.read(place(from, tap), seen) };
            }
        }
        let leave = |id: usize, seen: &[f32]| {
            for (tap, seen) in seen.chunks(width).take(taps - 1).enumerate() {
                // SAFETY: as above.
                unsafe { pool.write(place(id, tap), seen) };
            }
        };
        let mut saves = self.plan.saves_of(row).iter().peekable();
        for token in row.start..row.start + row.len {
            let at = token * channels + run.start;
            seen[(taps - 1) * width..].copy_from_slice(&x[at..at + width]);
            // SAFETY: no other task has these channels of this token.
            let out = unsafe { out.take(at, width) };
            for (channel, out) in out.iter_mut().enumerate() {
                let taps_of = &weight[(run.start + channel) * taps..][..taps];
                let mut sum = bias.map_or(0.0, |bias| bias[run.start + channel]);
                for (tap, weight) in taps_of.iter().enumerate() {
                    sum += seen[tap * width + channel] * weight;
                }
                *out = if silu { sum / (1.0 + (-sum).exp()) } else { sum };
            }
            seen.copy_within(width.., 0);
            if let Some(&(_, id)) = saves.next_if(|&&(after, _)| after == token) {
                leave(id, &seen);
            }
        }
        leave(row.to, &seen);
    }
}

/// Linear attention. Returns `[num_tokens, value_heads, value_dim]` in the type of `q`.
/// The pool is under the rules of [`super::attention::paged_attention`].
///
/// # Errors
/// Those of MLX. What does not fit fails when the node is evaluated.
pub fn recurrent_scan(
    spec: &ScanSpec,
    plan: &Arc<StatePlan>,
    inputs: &ScanInputs<'_>,
) -> Result<Array> {
    let kernel = Arc::new(Scan { spec: *spec, plan: Arc::clone(plan) });
    let shape = [inputs.q.dim(0), spec.value_heads, spec.value_dim];
    let ScanInputs { q, k, v, decay, .. } = *inputs;
    let mut arrays = vec![q, k, v, decay];
    arrays.extend(inputs.beta);
    // SAFETY: as for `paged_attention`.
    let out = unsafe { node_in_place(kernel, &arrays, &[inputs.pool], &[(&shape[..], q.dtype())]) };
    Ok(out?.remove(0))
}

struct Scan {
    spec: ScanSpec,
    plan: Arc<StatePlan>,
}

impl CpuKernel for Scan {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut in_place, mut outputs } = operands;
        let [q, k, v] = [0, 1, 2].map(|index| to_f32(inputs[index]));
        let decay = inputs[3].as_slice::<f32>();
        let beta = inputs.get(4).map(|beta| beta.as_slice::<f32>());
        assert_eq!(beta.is_some(), self.spec.delta, "beta belongs to the delta rule");
        let arrays = ScanArrays { q: &q, k: &k, v: &v, decay, beta };
        with_f32_output(&mut outputs[0], |out| self.over(arrays, out, &mut in_place[0]));
    }
}

#[derive(Clone, Copy)]
struct ScanArrays<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    decay: &'a [f32],
    beta: Option<&'a [f32]>,
}

impl Scan {
    fn over(&self, arrays: ScanArrays<'_>, out: &mut [f32], pool: &mut Output<'_>) {
        let ScanSpec { value_heads, value_dim, key_dim, .. } = self.spec;
        let matrix = value_dim * key_dim;
        let (out, pool) = (Shared::new(out), Shared::new(pool.as_mut_slice::<f32>()));
        parallel_for(self.plan.rows.len() * value_heads, |task| {
            let (row, head) = (&self.plan.rows[task / value_heads], task % value_heads);
            // SAFETY: no other task has this head of a state that this request reads or
            // writes.
            let state =
                |id: usize| unsafe { pool.take((id * value_heads + head) * matrix, matrix) };
            let here = state(row.to);
            match row.from {
                None => here.fill(0.0),
                Some(from) if from != row.to => here.copy_from_slice(state(from)),
                Some(_) => {}
            }
            let mut saves = self.plan.saves_of(row).iter().peekable();
            for token in row.start..row.start + row.len {
                let at = token * value_heads + head;
                // SAFETY: no other task has this head of this token.
                let out = unsafe { out.take(at * value_dim, value_dim) };
                with_best(Token { spec: self.spec, arrays, token, head, state: here, out });
                if let Some(&(_, id)) = saves.next_if(|&&(after, _)| after == token) {
                    state(id).copy_from_slice(here);
                }
            }
        });
    }
}

/// One token of one head.
struct Token<'a> {
    spec: ScanSpec,
    arrays: ScanArrays<'a>,
    token: usize,
    head: usize,
    state: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithVector for Token<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { spec, arrays, token, head, state, out } = self;
        let ScanSpec { key_heads, value_heads, key_dim, value_dim, .. } = spec;
        let at = token * value_heads + head;
        let first = (token * key_heads + head / (value_heads / key_heads)) * key_dim;
        let (q, k) = (&arrays.q[first..first + key_dim], &arrays.k[first..first + key_dim]);
        let columns = if spec.column_decay { key_dim } else { 1 };
        let decay = &arrays.decay[at * columns..][..columns];
        let v = &arrays.v[at * value_dim..][..value_dim];
        for (index, row) in state.chunks_exact_mut(key_dim).enumerate() {
            let known = decayed::<V>(row, decay, k);
            let mut news = v[index];
            if let Some(beta) = arrays.beta {
                news = (news - known) * beta[at];
            }
            out[index] = written::<V>(row, news, k, q);
        }
    }
}

/// Decays a row and gives what it has of `k`.
#[inline(always)]
fn decayed<V: Vector>(row: &mut [f32], decay: &[f32], k: &[f32]) -> f32 {
    let whole = row.len() / LANES * LANES;
    let mut sum = V::splat(0.0);
    for at in (0..whole).step_by(LANES) {
        // SAFETY: a whole vector inside the row; `k`, and a decay by column, are as long.
        unsafe {
            let share = match decay {
                [share] => V::splat(*share),
                _ => V::load(decay.as_ptr().add(at)),
            };
            let cells = V::load(row.as_ptr().add(at)).mul(share);
            cells.store(row.as_mut_ptr().add(at));
            sum = cells.fma(V::load(k.as_ptr().add(at)), sum);
        }
    }
    let mut rest = 0.0;
    for at in whole..row.len() {
        row[at] *= if decay.len() == 1 { decay[0] } else { decay[at] };
        rest += row[at] * k[at];
    }
    sum.sum() + rest
}

/// Adds `news` times `k` to a row and gives what it then has of `q`.
#[inline(always)]
fn written<V: Vector>(row: &mut [f32], news: f32, k: &[f32], q: &[f32]) -> f32 {
    let whole = row.len() / LANES * LANES;
    let mut sum = V::splat(0.0);
    for at in (0..whole).step_by(LANES) {
        // SAFETY: a whole vector inside the row; `k` and `q` are as long.
        unsafe {
            let cells =
                V::load(k.as_ptr().add(at)).fma(V::splat(news), V::load(row.as_ptr().add(at)));
            cells.store(row.as_mut_ptr().add(at));
            sum = cells.fma(V::load(q.as_ptr().add(at)), sum);
        }
    }
    let mut rest = 0.0;
    for at in whole..row.len() {
        row[at] += news * k[at];
        rest += row[at] * q[at];
    }
    sum.sum() + rest
}
