//! AWQ, in the layout of its `gemm` kernel: 4 bits, packed along the outputs, eight
//! of them to a word in an order of their own.
//!
//! Upstream: `sglang/srt/layers/quantization/awq.py`.

use mlx::{Array, Dtype};

use super::{
    Import, Settings,
    packing::{biases, pack_nibbles, unpack},
    sources::{Module, for_modules},
};
use crate::LoadError;

const INTS: [Dtype; 2] = [Dtype::Int32, Dtype::Uint32];
const SCALES: [Dtype; 3] = [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32];

/// Which four bits of a word hold the first output, the second, ...
const ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

pub(super) fn import(settings: &Settings<'_>) -> Result<Import, LoadError> {
    settings.expect("version", &["gemm"])?;
    let spec = settings.affine(("bits", &[4]), 128)?;
    let method = settings.method();
    Ok(Import::packed(settings.method(), spec, move |sources| {
        for_modules(method, "qweight", sources, rewrite)
    }))
}

fn rewrite(module: &mut Module<'_>) -> Result<(), LoadError> {
    let (qweight, [in_dims, words]) = module.take_matrix("qweight", &INTS)?;
    let out_dims = words * 8;
    let (scales, scale_shape) = module.take_matrix("scales", &SCALES)?;
    let [groups, _] = scale_shape;
    if scale_shape != [groups, out_dims] {
        return Err(module.wrong_shape("scales", &scales));
    }
    if !in_dims.is_multiple_of(8) {
        return Err(module.wrong_shape("qweight", &qweight));
    }
    let like_scales = (vec![out_dims, groups], scales.dtype());
    let weight = (vec![out_dims, in_dims / 8], Dtype::Uint32);
    module.put("weight", weight, vec![qweight], |parts| {
        pack_nibbles(&outputs(&parts[0])?.transpose(&[1, 0])?)
    })?;
    let both = match module.take_optional("qzeros") {
        None => vec![scales.clone()],
        Some(zeros) if zeros.shape() == [groups, words] && INTS.contains(&zeros.dtype()) => {
            vec![scales.clone(), zeros]
        }
        Some(zeros) => return Err(module.wrong_shape("qzeros", &zeros)),
    };
    module.put("biases", like_scales.clone(), both, |parts| {
        // Without zeros the elements count from the middle.
        let zeros = parts.get(1).map_or_else(|| Array::scalar(8_u8), outputs)?;
        biases(&zeros, &parts[0])?.transpose(&[1, 0])
    })?;
    module.put("scales", like_scales, vec![scales], |parts| parts[0].transpose(&[1, 0]))
}

/// `[rows, out_dims]`, a byte each.
fn outputs(words: &Array) -> mlx::Result<Array> {
    let [rows, columns] = [words.dim(0), words.dim(1)];
    let stored = unpack(words, 4)?.reshape(&[rows, columns, 8])?;
    let order = Array::from_slice(&ORDER, &[8])?;
    stored.take(&order, -1)?.reshape(&[rows, columns * 8])
}
