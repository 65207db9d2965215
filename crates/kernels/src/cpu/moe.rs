//! Mixture of experts: which experts take a token, the product of each token with
//! its experts' matrices, and their sum. A slot is one token at one of its experts.
//!
//! Slots are brought into groups by expert, and each group is a product like any
//! other: so a slot's result does not depend on which others there are.
//!
//! Upstream: `sglang/srt/layers/moe/`.

use std::sync::Arc;

use mlx::{
    Array, Dtype, Result,
    cpu_kernel::{CpuKernel, Input, Operands, Output},
};

use super::{
    chain::node,
    floats::{to_f32, with_f32_output},
    matmul::matmul,
    nodes::values,
    qmm::{self, QuantizedMatrix},
    rows::{Rows, one, over_rows},
    values::{Values, ValuesMut},
};

#[cfg(test)]
mod tests;

/// A stack of packed matrices.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedStack<'a> {
    /// `[num_experts, out_dims, in_dims * bits / 32]` u32.
    pub weight: &'a Array,
    /// `[num_experts, out_dims, in_dims / group_size]`, any float type.
    pub scales: &'a Array,
    /// As `scales`.
    pub biases: &'a Array,
    /// Weights that share a scale and a bias.
    pub group_size: usize,
    /// Bits of a weight.
    pub bits: usize,
}

/// Experts (int32) and weights (f32) of each token, `[num_tokens * top_k]` both,
/// from the router's `logits`, `[num_tokens, num_experts]`: softmax, then the
/// largest `top_k`, the likeliest first, of equals the first. With `renormalize`
/// a token's weights add up to one.
///
/// # Errors
/// Those of MLX. A `top_k` of more than all experts fails when the node is evaluated.
pub fn moe_topk(logits: &Array, top_k: usize, renormalize: bool) -> Result<(Array, Array)> {
    let shape = [logits.dim(0) * top_k];
    let outputs: &[(&[usize], Dtype)] = &[(&shape, Dtype::Int32), (&shape, Dtype::Float32)];
    let out = node(Arc::new(TopK { top_k, renormalize }), &[logits], outputs)?;
    let [experts, weights] = out.try_into().expect("two outputs were asked for");
    Ok((experts, weights))
}

struct TopK {
    top_k: usize,
    renormalize: bool,
}

impl CpuKernel for TopK {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut outputs, .. } = operands;
        let num_experts = inputs[0].dim(1);
        assert!((1..=num_experts).contains(&self.top_k), "experts of a token");
        let logits = to_f32(inputs[0]);
        let [experts, weights] = &mut outputs[..] else { panic!("two outputs") };
        let experts = experts.as_mut_slice::<i32>().chunks_exact_mut(self.top_k);
        let weights = weights.as_mut_slice::<f32>().chunks_exact_mut(self.top_k);
        for ((logits, experts), weights) in
            logits.chunks_exact(num_experts).zip(experts).zip(weights)
        {
            self.choose(logits, experts, weights);
        }
    }
}

impl TopK {
    fn choose(&self, logits: &[f32], experts: &mut [i32], weights: &mut [f32]) {
        let mut len = 0;
        for (expert, &logit) in (0..).zip(logits) {
            // Behind all that are not smaller.
            let at = weights[..len].iter().position(|&chosen| logit > chosen).unwrap_or(len);
            if at == self.top_k {
                continue;
            }
            len = self.top_k.min(len + 1);
            weights[at..len].rotate_right(1);
            experts[at..len].rotate_right(1);
            (weights[at], experts[at]) = (logit, expert);
        }
        let most = weights[0];
        for weight in &mut *weights {
            *weight = (*weight - most).exp();
        }
        let total: f32 = match self.renormalize {
            true => weights.iter().sum(),
            false => logits.iter().map(|logit| (logit - most).exp()).sum(),
        };
        for weight in weights {
            *weight /= total;
        }
    }
}

/// Each slot's row of `x` times its expert's matrix: `experts` `[num_slots]` int32;
/// `x` `[num_tokens, in_dims]`, f32, bf16 or f16, has a row for each slot, or for as
/// many in a row as a token has. Returns `[num_slots, out_dims]` in the type of `x`.
///
/// # Errors
/// Those of MLX. Shapes that do not fit, and experts that are not there, fail when
/// the node is evaluated.
pub fn gather_quantized_matmul(
    x: &Array,
    stack: &QuantizedStack<'_>,
    experts: &Array,
) -> Result<Array> {
    let QuantizedStack { weight, scales, biases, group_size, bits } = *stack;
    let shape = [experts.size(), weight.dim(1)];
    let kernel = Arc::new(GatherQuantizedMatmul { group_size, bits });
    let inputs = [x, experts, weight, scales, biases];
    Ok(one(node(kernel, &inputs, &[(&shape, x.dtype())])?))
}

struct GatherQuantizedMatmul {
    group_size: usize,
    bits: usize,
}

impl CpuKernel for GatherQuantizedMatmul {
    fn run(&self, mut operands: Operands<'_>) {
        let [x, experts, weight, scales, biases] = operands.inputs[..] else {
            panic!("five inputs")
        };
        let (stack, rows, columns) = (weight.dim(0), weight.dim(1), x.dim(1));
        let (words, groups) = (rows * weight.dim(2), rows * scales.dim(2));
        let weight = weight.as_slice::<u32>();
        let (scales, biases) = (values(scales), values(biases));
        let slots = Slots::new(experts, stack);
        slots.multiply(x, &mut operands.outputs[0], |expert, num_rows, x, y| {
            let matrix = QuantizedMatrix {
                weight: &weight[expert * words..][..words],
                scales: part(scales, expert, groups),
                biases: part(biases, expert, groups),
                rows,
                columns,
                group_size: self.group_size,
                bits: self.bits,
            };
            qmm::quantized_matmul(num_rows, x, &matrix, y);
        });
    }
}

/// As [`gather_quantized_matmul`], of dense matrices `weight`,
/// `[num_experts, out_dims, in_dims]`, f32, bf16 or f16.
///
/// # Errors
/// As there.
pub fn gather_matmul(x: &Array, weight: &Array, experts: &Array) -> Result<Array> {
    let shape = [experts.size(), weight.dim(1)];
    let kernel = Arc::new(GatherMatmul);
    Ok(one(node(kernel, &[x, experts, weight], &[(&shape, x.dtype())])?))
}

struct GatherMatmul;

impl CpuKernel for GatherMatmul {
    fn run(&self, mut operands: Operands<'_>) {
        let [x, experts, weight] = operands.inputs[..] else { panic!("three inputs") };
        let (stack, rows, columns) = (weight.dim(0), weight.dim(1), weight.dim(2));
        let weight = values(weight);
        let slots = Slots::new(experts, stack);
        slots.multiply(x, &mut operands.outputs[0], |expert, num_rows, x, y| {
            matmul([num_rows, rows, columns], x, part(weight, expert, rows * columns), y);
        });
    }
}

/// Part `index` of `len` values.
fn part(values: Values<'_>, index: usize, len: usize) -> Values<'_> {
    let range = index * len..(index + 1) * len;
    match values {
        Values::F32(values) => Values::F32(&values[range]),
        Values::Bf16(values) => Values::Bf16(&values[range]),
        Values::F16(values) => Values::F16(&values[range]),
    }
}

/// Slots by expert.
struct Slots {
    /// Those of expert 0, then those of expert 1, and so on, each in order.
    order: Vec<usize>,
    /// Where each expert's end.
    ends: Vec<usize>,
}

impl Slots {
    fn new(experts: Input<'_>, num_experts: usize) -> Self {
        let experts = experts.as_slice::<i32>();
        let mut starts = vec![0; num_experts + 1];
        for &expert in experts {
            let known = usize::try_from(expert).ok().filter(|&expert| expert < num_experts);
            starts[known.unwrap_or_else(|| panic!("expert {expert} of {num_experts}")) + 1] += 1;
        }
        for at in 0..num_experts {
            starts[at + 1] += starts[at];
        }
        let mut order = vec![0; experts.len()];
        for (slot, &expert) in experts.iter().enumerate() {
            let next = &mut starts[expert as usize];
            order[*next] = slot;
            *next += 1;
        }
        starts.pop();
        Self { order, ends: starts }
    }

    /// Runs `product(expert, num_rows, x, y)` for each expert that has slots.
    fn multiply(
        &self,
        x: Input<'_>,
        out: &mut Output<'_>,
        mut product: impl FnMut(usize, usize, Values<'_>, &mut ValuesMut<'_>),
    ) {
        let (tokens, columns, width) = (x.dim(0), x.dim(1), out.dim(1));
        let num_slots = self.order.len();
        if num_slots == 0 {
            return;
        }
        assert!(tokens > 0 && num_slots.is_multiple_of(tokens), "slots of a token");
        let (x, slots_of_token) = (values(x), num_slots / tokens);
        let (mut rows, mut results) = (Vec::new(), Vec::new());
        with_f32_output(out, |out| {
            let mut start = 0;
            for (expert, &end) in self.ends.iter().enumerate() {
                let slots = &self.order[start..end];
                start = end;
                if slots.is_empty() {
                    continue;
                }
                rows.resize(slots.len() * columns, 0.0);
                results.resize(slots.len() * width, 0.0);
                for (row, slot) in rows.chunks_exact_mut(columns).zip(slots) {
                    x.widen(slot / slots_of_token * columns, row);
                }
                let mut y = ValuesMut::F32(&mut results);
                product(expert, slots.len(), Values::F32(&rows), &mut y);
                for (result, slot) in results.chunks_exact(width).zip(slots) {
                    out[slot * width..][..width].copy_from_slice(result);
                }
            }
        });
    }
}

/// What a token's experts gave, `slots` `[num_tokens * top_k, dims]`, by their
/// `weights`, `[num_tokens * top_k]` f32: `[num_tokens, dims]`, summed in f32.
///
/// # Errors
/// Those of MLX.
pub fn moe_sum(slots: &Array, weights: &Array, top_k: usize) -> Result<Array> {
    let shape = [slots.dim(0) / top_k.max(1), slots.dim(1)];
    let kernel = Arc::new(Sum { top_k });
    Ok(one(node(kernel, &[slots, weights], &[(&shape, slots.dtype())])?))
}

struct Sum {
    top_k: usize,
}

impl CpuKernel for Sum {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut outputs, .. } = operands;
        let (slots, weights) = (to_f32(inputs[0]), inputs[1].as_slice::<f32>());
        let (num_tokens, width, top_k) = (outputs[0].dim(0), outputs[0].dim(1), self.top_k);
        assert_eq!(weights.len(), num_tokens * top_k, "a weight for each slot");
        assert_eq!(slots.len(), weights.len() * width, "rows of slots");
        with_f32_output(&mut outputs[0], |out| {
            let rows = Rows::new(out);
            over_rows(num_tokens, top_k * width, |first, count| {
                for token in first..first + count {
                    // SAFETY: every task has rows of its own.
                    let out = unsafe { rows.take(token, 1, width) };
                    out.fill(0.0);
                    for slot in token * top_k..(token + 1) * top_k {
                        for (out, x) in out.iter_mut().zip(&slots[slot * width..][..width]) {
                            *out += weights[slot] * x;
                        }
                    }
                }
            });
        });
    }
}
