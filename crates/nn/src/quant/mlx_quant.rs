//! MLX's own packings: affine integers and the three small float formats.

use mlx::{Array, Result, quantized::quantized_matmul};

use super::Packed;
use crate::QuantSpec;

pub(super) fn matmul(packed: &Packed, x: &Array) -> Result<Array> {
    let Packed { weight, scales, biases, spec } = packed;
    let QuantSpec { group_size, bits, mode } = *spec;
    quantized_matmul(x, weight, scales, biases.as_ref(), true, group_size, bits, mode)
}
