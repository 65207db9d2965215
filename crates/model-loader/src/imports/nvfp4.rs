//! NVFP4 with a second scale for the whole tensor, which MLX's packed product has no
//! place for: the weights become dense bf16. `--quantization nvfp4` packs them again.

use mlx::{
    Array, Dtype,
    quantized::{QuantMode, dequantize},
};

use super::sources::Module;
use crate::LoadError;

/// How the tensor's scale is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GlobalScale {
    /// As a factor of the weights.
    Factor,
    /// As what the weights were multiplied by.
    Divisor,
}

const GROUP_SIZE: usize = 16;

/// Names of the packed weight and of the tensor's scale differ between tools.
pub(super) fn to_dense(
    module: &mut Module<'_>,
    weight_part: &str,
    (global_part, kind): (&str, GlobalScale),
) -> Result<(), LoadError> {
    let (weight, [rows, half]) = module.take_matrix(weight_part, &[Dtype::Uint8])?;
    let (scales, groups) = module.take_matrix("weight_scale", &[Dtype::Uint8])?;
    let columns = half * 2;
    if groups != [rows, columns / GROUP_SIZE] || !columns.is_multiple_of(GROUP_SIZE) {
        return Err(module.wrong_shape("weight_scale", &scales));
    }
    let global = module.take(global_part)?;
    if global.shape().iter().product::<usize>() != 1 || !global.dtype().is_float() {
        return Err(module.wrong_shape(global_part, &global));
    }
    let result = (vec![rows, columns], Dtype::Bfloat16);
    module.put("weight", result, vec![weight, scales, global], move |parts| {
        let words = parts[0].view(Dtype::Uint32)?;
        let (mode, f32) = (QuantMode::Nvfp4, Some(Dtype::Float32));
        let blocks = dequantize(&words, &parts[1], None, GROUP_SIZE, 4, mode, f32)?;
        let global = parts[2].astype(Dtype::Float32)?.reshape(&[1, 1])?;
        scaled(&blocks, &global, kind)?.astype(Dtype::Bfloat16)
    })
}

fn scaled(blocks: &Array, global: &Array, kind: GlobalScale) -> mlx::Result<Array> {
    match kind {
        GlobalScale::Factor => blocks.multiply(global),
        GlobalScale::Divisor => blocks.divide(global),
    }
}
