//! FP8: E4M3 weights with a scale for the tensor, for each output, or for each block.
//!
//! The product becomes a dense bf16 weight, as in mlx-lm; `--quantization` packs it
//! again. Blocks of 32 by 32 with powers of two for scales are MXFP8, which MLX
//! multiplies packed.
//!
//! Upstream: `sglang/srt/layers/quantization/fp8.py`.

use std::rc::Rc;

use mlx::{Array, Dtype, quantized::QuantMode};
use nn::TensorSource;

use super::{
    Import, Settings, float8,
    sources::{Module, Sources, drop_activation_scales, for_modules},
};
use crate::{ImportProblem, LoadError};

const SCALES: [Dtype; 4] = [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32, Dtype::Uint8];

pub(super) fn import(settings: &Settings<'_>) -> Result<Import, LoadError> {
    settings.expect("fmt", &["e4m3", "float8_e4m3fn"])?;
    let (method, block) = (settings.method(), settings.block("weight_block_size")?);
    let has_powers = settings.get("scale_fmt").is_some_and(|name| name == "ue8m0");
    if has_powers && block == Some([32, 32]) {
        return Ok(Import::packed_as(settings.method(), QuantMode::Mxfp8, move |sources| {
            drop_activation_scales(sources);
            for_modules(method, "weight_scale_inv", sources, to_mxfp8)
        }));
    }
    Ok(Import::dense(settings.method(), move |sources| to_dense(method, block, sources)))
}

/// Every module with `weight_scale_inv` or `weight_scale`.
pub(super) fn to_dense(
    method: &'static str,
    block: Option<[usize; 2]>,
    sources: &mut Sources,
) -> Result<(), LoadError> {
    drop_activation_scales(sources);
    for part in ["weight_scale_inv", "weight_scale"] {
        for_modules(method, part, sources, |module| module_to_dense(module, part, block))?;
    }
    Ok(())
}

fn module_to_dense(
    module: &mut Module<'_>,
    scale_part: &str,
    block: Option<[usize; 2]>,
) -> Result<(), LoadError> {
    let (weight, [rows, columns]) = module.take_matrix("weight", &[Dtype::Uint8])?;
    let scales = module.take(scale_part)?;
    if !SCALES.contains(&scales.dtype()) {
        let problem = ImportProblem::Type(scales.dtype());
        return Err(module.refuse(scale_part, problem));
    }
    let Some([high, wide]) = block_of(&scales, [rows, columns], block) else {
        return Err(module.wrong_shape(scale_part, &scales));
    };
    let result = (vec![rows, columns], Dtype::Bfloat16);
    module.put("weight", result, vec![weight, scales], move |parts| {
        scaled(&parts[0], &float8::scales(&parts[1])?, [high, wide])
    })
}

/// Rows and columns that share a scale.
fn block_of(
    scales: &Rc<dyn TensorSource>,
    [rows, columns]: [usize; 2],
    block: Option<[usize; 2]>,
) -> Option<[usize; 2]> {
    match (scales.shape(), block) {
        (shape, Some([high, wide])) => {
            let fits = shape == [rows.div_ceil(high), columns.div_ceil(wide)];
            // Blocks are padded, but not beyond twice the matrix.
            fits.then_some([high.min(rows).max(1), wide.min(columns).max(1)])
        }
        ([] | [1] | [1, 1], None) => Some([rows, columns]),
        (&[each] | &[each, 1], None) if each == rows => Some([1, columns]),
        _ => None,
    }
}

/// `weight * scale` in bf16, rounded once.
fn scaled(bytes: &Array, scales: &Array, [high, wide]: [usize; 2]) -> mlx::Result<Array> {
    let [rows, columns] = [bytes.dim(0), bytes.dim(1)];
    let [down, across] = [rows.div_ceil(high), columns.div_ceil(wide)];
    let widths = [(0, down * high - rows), (0, across * wide - columns)];
    let padded = match widths {
        [(0, 0), (0, 0)] => bytes.clone(),
        _ => bytes.pad(&widths, &Array::scalar(0_u8)?)?,
    };
    let blocks = float8::from_e4m3(&padded)?.reshape(&[down, high, across, wide])?;
    let product = blocks.multiply(&scales.reshape(&[down, 1, across, 1])?)?;
    let product = product.astype(Dtype::Bfloat16)?.reshape(&[down * high, across * wide])?;
    first(&product, [rows, columns])
}

/// The upper left corner of a matrix.
fn first(matrix: &Array, [rows, columns]: [usize; 2]) -> mlx::Result<Array> {
    let bound = |dim: usize| i32::try_from(dim).expect("dimensions are checked on opening");
    matrix.slice(&[0, 0], &[bound(rows), bound(columns)], &[1, 1])
}

/// The same bytes, and each block's scale once for each of its rows.
fn to_mxfp8(module: &mut Module<'_>) -> Result<(), LoadError> {
    let (weight, [rows, columns]) = module.take_matrix("weight", &[Dtype::Uint8])?;
    let (scales, blocks) =
        module.take_matrix("weight_scale_inv", &[Dtype::Uint8, Dtype::Float32])?;
    if blocks != [rows.div_ceil(32), columns / 32] || !columns.is_multiple_of(32) {
        return Err(module.wrong_shape("weight_scale_inv", &scales));
    }
    let words = (vec![rows, columns / 4], Dtype::Uint32);
    module.put("weight", words, vec![weight], |parts| parts[0].view(Dtype::Uint32))?;
    let groups = [rows, columns / 32];
    module.put("scales", (groups.to_vec(), Dtype::Uint8), vec![scales], move |parts| {
        first(&exponents(&parts[0])?.repeat(32, 0)?, groups)
    })
}

/// Powers of two by their exponents, which f32 holds in the same form.
fn exponents(scales: &Array) -> mlx::Result<Array> {
    match scales.dtype() {
        Dtype::Float32 => {
            let bits = scales.view(Dtype::Uint32)?;
            bits.right_shift(&Array::scalar(23_u32)?)?.astype(Dtype::Uint8)
        }
        _ => Ok(scales.clone()),
    }
}
