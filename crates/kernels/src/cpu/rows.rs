//! What is done to each token's row between the products: norm with the
//! residual, gated activation, rotary embedding. One node each instead of the
//! five to ten that MLX's own operations would be.

use std::{borrow::Cow, sync::Arc};

use mlx::{
    Array, Dtype, Result,
    cpu_kernel::{CpuKernel, Operands},
};

use super::{
    chain::node,
    floats::{to_f32, with_f32_output},
    lanes::{LANES, Vector, WithVector, with_best},
    parallel::parallel_for,
};

#[cfg(test)]
mod tests;

/// Elements that are worth a task of their own.
const TASK_ELEMENTS: usize = 16 << 10;

/// Rows of an output, for tasks that each take their own.
#[derive(Clone, Copy)]
pub(super) struct Rows(*mut f32);

// SAFETY: tasks take different rows.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    pub(super) fn new(out: &mut [f32]) -> Self {
        Self(out.as_mut_ptr())
    }

    /// # Safety
    /// The rows exist, live longer than `'a`, and are taken once.
    pub(super) unsafe fn take<'a>(self, first: usize, count: usize, width: usize) -> &'a mut [f32] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(first * width), count * width) }
    }
}

/// Runs `task(first, count)` over all rows, in tasks worth their while.
pub(super) fn over_rows(num_rows: usize, width: usize, task: impl Fn(usize, usize) + Sync) {
    let per_task = (TASK_ELEMENTS / width.max(1)).max(1);
    parallel_for(num_rows.div_ceil(per_task), |index| {
        let first = index * per_task;
        task(first, per_task.min(num_rows - first));
    });
}

/// `hidden + delta`, and its norm: `x / rms(x) * weight`. `hidden` and `delta`
/// are `[num_tokens, dims]`, `weight` is `[dims]`.
///
/// # Errors
/// Those of MLX.
pub fn add_rms_norm(
    hidden: &Array,
    delta: &Array,
    weight: &Array,
    eps: f32,
) -> Result<(Array, Array)> {
    let output = (&hidden.shape()[..], hidden.dtype());
    let out = node(Arc::new(Norm { eps }), &[hidden, weight, delta], &[output, output])?;
    let [sum, normed] = out.try_into().expect("two outputs were asked for");
    Ok((sum, normed))
}

/// `x / rms(x) * weight` over the last axis.
///
/// # Errors
/// Those of MLX.
pub fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<Array> {
    let out = node(Arc::new(Norm { eps }), &[x, weight], &[(&x.shape(), x.dtype())])?;
    Ok(one(out))
}

pub(super) fn one(mut outputs: Vec<Array>) -> Array {
    outputs.pop().expect("an output was asked for")
}

/// With a third input, adds it first and gives the sum too.
struct Norm {
    eps: f32,
}

impl CpuKernel for Norm {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut outputs, .. } = operands;
        let weight = to_f32(inputs[1]);
        let dims = weight.len();
        let x = to_f32(inputs[0]);
        let sum: Cow<'_, [f32]> = match (inputs.get(2), &mut outputs[..]) {
            (Some(&delta), [sum, _]) => {
                let delta = to_f32(delta);
                assert_eq!(
                    delta.len(),
                    x.len(),
                    "what is added has the shape of what it is added to"
                );
                let mut added = vec![0.0; x.len()];
                with_best(Add { a: &x, b: &delta, out: &mut added });
                // The sum is rounded to its type before it is normed, as if the
                // addition were an operation of its own.
                with_f32_output(sum, |out| out.copy_from_slice(&added));
                if sum.dtype() == Dtype::Float32 { added.into() } else { reread(sum).into() }
            }
            _ => x,
        };
        let normed = outputs.last_mut().expect("an output was asked for");
        with_f32_output(normed, |out| {
            let rows = Rows::new(out);
            over_rows(out.len() / dims, dims, |first, count| {
                // SAFETY: every task has rows of its own.
                let out = unsafe { rows.take(first, count, dims) };
                let x = &sum[first * dims..(first + count) * dims];
                with_best(NormRows { x, weight: &weight, eps: self.eps, out });
            });
        });
    }
}

/// The output's elements, as rounded.
fn reread(output: &mut mlx::cpu_kernel::Output<'_>) -> Vec<f32> {
    match output.dtype() {
        Dtype::Bfloat16 => {
            output.as_mut_slice::<half::bf16>().iter().map(|value| value.to_f32()).collect()
        }
        _ => output.as_mut_slice::<half::f16>().iter().map(|value| value.to_f32()).collect(),
    }
}

struct Add<'a> {
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl WithVector for Add<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for ((out, a), b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = a + b;
        }
    }
}

struct NormRows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl WithVector for NormRows<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let dims = self.weight.len();
        for (x, out) in self.x.chunks_exact(dims).zip(self.out.chunks_exact_mut(dims)) {
            let whole = dims / LANES * LANES;
            let mut squares = V::splat(0.0);
            for at in (0..whole).step_by(LANES) {
                // SAFETY: inside the row.
                let x = unsafe { V::load(x.as_ptr().add(at)) };
                squares = x.fma(x, squares);
            }
            let rest: f32 = x[whole..].iter().map(|x| x * x).sum();
            let mean = (squares.sum() + rest) / dims as f32;
            let factor = 1.0 / (mean + self.eps).sqrt();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(self.weight) {
                *out = x * factor * weight;
            }
        }
    }
}

/// `silu(gate) * value` for `gate_up` `[num_tokens, 2 * dims]`, gates first.
///
/// # Errors
/// Those of MLX.
pub fn silu_and_mul(gate_up: &Array) -> Result<Array> {
    let shape = [gate_up.dim(0), gate_up.dim(1) / 2];
    Ok(one(node(Arc::new(SiluAndMul), &[gate_up], &[(&shape, gate_up.dtype())])?))
}

struct SiluAndMul;

impl CpuKernel for SiluAndMul {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut outputs, .. } = operands;
        let dims = outputs[0].dim(1);
        let gate_up = to_f32(inputs[0]);
        with_f32_output(&mut outputs[0], |out| {
            let rows = Rows::new(out);
            over_rows(out.len() / dims.max(1), dims, |first, count| {
                // SAFETY: every task has rows of its own.
                let out = unsafe { rows.take(first, count, dims) };
                let gate_up = &gate_up[first * 2 * dims..(first + count) * 2 * dims];
                with_best(SiluRows { gate_up, dims, out });
            });
        });
    }
}

struct SiluRows<'a> {
    gate_up: &'a [f32],
    dims: usize,
    out: &'a mut [f32],
}

impl WithVector for SiluRows<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let rows = self.gate_up.chunks_exact(2 * self.dims);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.dims)) {
            let (gate, up) = row.split_at(self.dims);
            let mut at = 0;
            while at < self.dims {
                // The last vector may overlap the one before.
                let start = at.min(self.dims.saturating_sub(LANES));
                if self.dims < LANES {
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = gate / (1.0 + (-gate).exp()) * up;
                    }
                    break;
                }
                // SAFETY: a whole vector inside the row.
                unsafe {
                    let gate = V::load(gate.as_ptr().add(start));
                    let up = V::load(up.as_ptr().add(start));
                    let one = V::splat(1.0);
                    let sigmoid = one.div(V::splat(0.0).sub(gate).exp().add(one));
                    gate.mul(sigmoid).mul(up).store(out.as_mut_ptr().add(start));
                }
                at += LANES;
            }
        }
    }
}

/// Norms of the heads of q and k, before they rotate.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorms<'a> {
    /// `[head_dim]`.
    pub q: &'a Array,
    /// `[head_dim]`.
    pub k: &'a Array,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// Takes the outputs of a merged projection apart, norms heads if there are `norms`,
/// and rotates q and k: `qkv` `[num_tokens, (num_heads + 2 * num_kv_heads) * head_dim]`
/// to q `[num_tokens, num_heads, head_dim]`, k and v `[num_tokens, num_kv_heads,
/// head_dim]`.
///
/// `cos` and `sin` are `[num_tokens, 1, dims]` f32 as two halves: cosines twice;
/// sines negated, then sines. Element i pairs with i + dims / 2; elements of a head
/// beyond `dims` stay as they are.
///
/// # Errors
/// Those of MLX.
pub fn rope_split(
    qkv: &Array,
    [num_heads, num_kv_heads, head_dim]: [usize; 3],
    norms: Option<HeadNorms<'_>>,
    (cos, sin): (&Array, &Array),
) -> Result<[Array; 3]> {
    let num_tokens = qkv.dim(0);
    let shapes = [num_heads, num_kv_heads, num_kv_heads].map(|heads| [num_tokens, heads, head_dim]);
    let outputs: Vec<(&[usize], Dtype)> =
        shapes.iter().map(|shape| (&shape[..], qkv.dtype())).collect();
    let mut inputs = vec![qkv, cos, sin];
    inputs.extend(norms.iter().flat_map(|norms| [norms.q, norms.k]));
    let kernel = RopeSplit { head_dim, eps: norms.map_or(0.0, |norms| norms.eps) };
    let out = node(Arc::new(kernel), &inputs, &outputs)?;
    Ok(out.try_into().expect("three outputs were asked for"))
}

/// With two more inputs, norms the heads of q and of k by them.
struct RopeSplit {
    head_dim: usize,
    eps: f32,
}

impl CpuKernel for RopeSplit {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut outputs, .. } = operands;
        let qkv = to_f32(inputs[0]);
        let (cos, sin) = (inputs[1].as_slice::<f32>(), inputs[2].as_slice::<f32>());
        let (num_tokens, row) = (inputs[0].dim(0), inputs[0].dim(1));
        let dims = inputs[1].dim(2);
        assert!(dims <= self.head_dim, "a cosine for elements of a head");
        assert_eq!((cos.len(), sin.len()), (num_tokens * dims, cos.len()));
        let norms: Vec<_> = inputs[3..].iter().map(|&weight| to_f32(weight)).collect();
        assert!(norms.iter().all(|weight| weight.len() == self.head_dim), "a norm of heads");
        let mut first = 0;
        for (part, output) in outputs.iter_mut().enumerate() {
            let width = output.dim(1) * self.head_dim;
            with_f32_output(output, |out| {
                let rows = Rows::new(out);
                over_rows(num_tokens, width, |from, count| {
                    // SAFETY: every task has rows of its own.
                    let out = unsafe { rows.take(from, count, width) };
                    let mut normed = vec![0.0; if norms.is_empty() { 0 } else { width }];
                    for (token, out) in (from..from + count).zip(out.chunks_exact_mut(width)) {
                        let mut x = &qkv[token * row + first..][..width];
                        if let Some(weight) = norms.get(part) {
                            with_best(NormRows { x, weight, eps: self.eps, out: &mut normed });
                            x = &normed;
                        }
                        let at = token * dims..(token + 1) * dims;
                        if part < 2 {
                            let tables = (&cos[at.clone()], &sin[at]);
                            for head in (0..width).step_by(self.head_dim) {
                                let head = head..head + self.head_dim;
                                rotate(&x[head.clone()], tables, &mut out[head]);
                            }
                        } else {
                            out.copy_from_slice(x);
                        }
                    }
                });
            });
            first += width;
        }
    }
}

/// One head, of which as much as there are cosines.
fn rotate(x: &[f32], (cos, sin): (&[f32], &[f32]), out: &mut [f32]) {
    let dims = cos.len();
    let half = dims / 2;
    let (low, high) = x[..dims].split_at(half);
    let (out_low, out_high) = out[..dims].split_at_mut(half);
    for at in 0..half {
        out_low[at] = low[at] * cos[at] + high[at] * sin[at];
        out_high[at] = high[at] * cos[half + at] + low[at] * sin[half + at];
    }
    out[dims..].copy_from_slice(&x[dims..]);
}
