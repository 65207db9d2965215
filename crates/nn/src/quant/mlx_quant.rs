//! MLX's own packings: affine integers and the three small float formats. On the
//! CPU device affine products are ours: MLX's are scalar loops on one core.

use mlx::{Array, Result, quantized::quantized_matmul};

use super::Packed;
use crate::{QuantSpec, on_cpu::on_cpu};

pub(super) fn matmul(packed: &Packed, x: &Array) -> Result<Array> {
    let Packed { weight, scales, biases, spec } = packed;
    let QuantSpec { group_size, bits, mode } = *spec;
    if let Some(biases) = biases
        && on_cpu()?
        && spec.has_cpu_kernel()
    {
        return kernels::cpu::quantized_matmul(x, weight, scales, biases, group_size, bits);
    }
    quantized_matmul(x, weight, scales, biases.as_ref(), true, group_size, bits, mode)
}
