//! Products as nodes of MLX's graph.

use std::sync::Arc;

use half::{bf16, f16};
use mlx::{
    Array, Dtype, Result,
    cpu_kernel::{CpuKernel, Input, Operands, Output},
};

use super::{
    chain::node,
    matmul::matmul as dense_matmul,
    qmm::{self, QuantizedMatrix},
    values::{Values, ValuesMut},
};

#[cfg(test)]
mod tests;

/// Whether [`quantized_matmul`] knows the format.
pub fn supports_quantized(group_size: usize, bits: usize) -> bool {
    qmm::BITS.contains(&bits) && qmm::GROUP_SIZES.contains(&group_size)
}

/// `x` `[num_tokens, in_dims]`, f32, bf16 or f16, times a packed matrix: `w`
/// `[out_dims, in_dims * bits / 32]` u32, `scales` and `biases`
/// `[out_dims, in_dims / group_size]` of any float type. Returns
/// `[num_tokens, out_dims]` in the type of `x`.
///
/// # Errors
/// Those of MLX. Shapes that do not fit fail when the node is evaluated.
pub fn quantized_matmul(
    x: &Array,
    w: &Array,
    scales: &Array,
    biases: &Array,
    group_size: usize,
    bits: usize,
) -> Result<Array> {
    let kernel = Arc::new(QuantizedMatmul { group_size, bits });
    let outputs: &[(&[usize], Dtype)] = &[(&[x.dim(0), w.dim(0)], x.dtype())];
    let mut out = node(kernel, &[x, w, scales, biases], outputs)?;
    Ok(out.remove(0))
}

struct QuantizedMatmul {
    group_size: usize,
    bits: usize,
}

impl CpuKernel for QuantizedMatmul {
    fn run(&self, mut operands: Operands<'_>) {
        let [x, w, scales, biases] = operands.inputs[..] else { panic!("four inputs") };
        let matrix = QuantizedMatrix {
            weight: w.as_slice(),
            scales: values(scales),
            biases: values(biases),
            rows: w.dim(0),
            columns: x.dim(1),
            group_size: self.group_size,
            bits: self.bits,
        };
        let mut y = values_mut(&mut operands.outputs[0]);
        qmm::quantized_matmul(x.dim(0), values(x), &matrix, &mut y);
    }
}

/// `x` `[num_tokens, in_dims]` times the rows of a dense matrix `w`
/// `[out_dims, in_dims]`; both f32, bf16 or f16. Returns `[num_tokens, out_dims]`
/// in the type of `x`.
///
/// # Errors
/// Those of MLX. Shapes that do not fit fail when the node is evaluated.
pub fn matmul(x: &Array, w: &Array) -> Result<Array> {
    let outputs: &[(&[usize], Dtype)] = &[(&[x.dim(0), w.dim(0)], x.dtype())];
    let mut out = node(Arc::new(Matmul), &[x, w], outputs)?;
    Ok(out.remove(0))
}

struct Matmul;

impl CpuKernel for Matmul {
    fn run(&self, mut operands: Operands<'_>) {
        let [x, w] = operands.inputs[..] else { panic!("two inputs") };
        let shape = [x.dim(0), w.dim(0), w.dim(1)];
        let mut y = values_mut(&mut operands.outputs[0]);
        dense_matmul(shape, values(x), values(w), &mut y);
    }
}

pub(super) fn values(input: Input<'_>) -> Values<'_> {
    match input.dtype() {
        Dtype::Float32 => Values::F32(input.as_slice()),
        Dtype::Bfloat16 => Values::Bf16(input.as_slice::<bf16>()),
        Dtype::Float16 => Values::F16(input.as_slice::<f16>()),
        other => panic!("{other} is no float type that kernels know"),
    }
}

pub(super) fn values_mut<'a>(output: &'a mut Output<'_>) -> ValuesMut<'a> {
    match output.dtype() {
        Dtype::Float32 => ValuesMut::F32(output.as_mut_slice()),
        Dtype::Bfloat16 => ValuesMut::Bf16(output.as_mut_slice::<bf16>()),
        Dtype::Float16 => ValuesMut::F16(output.as_mut_slice::<f16>()),
        other => panic!("{other} is no float type that kernels know"),
    }
}
