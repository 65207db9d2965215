//! MLX's own packings: affine integers and the three small float formats. On the
//! CPU device affine products are ours: MLX's are scalar loops on one core.

use mlx::{
    Array, Result,
    device::{self, DeviceKind},
    quantized::quantized_matmul,
};

use super::Packed;
use crate::QuantSpec;

pub(super) fn matmul(packed: &Packed, x: &Array) -> Result<Array> {
    let Packed { weight, scales, biases, spec } = packed;
    let QuantSpec { group_size, bits, mode } = *spec;
    if let Some(biases) = biases
        && device::default()? == DeviceKind::Cpu
        && spec.has_cpu_kernel()
    {
        return kernels::cpu::quantized_matmul(x, weight, scales, biases, group_size, bits);
    }
    quantized_matmul(x, weight, scales, biases.as_ref(), true, group_size, bits, mode)
}
