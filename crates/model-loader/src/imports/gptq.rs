//! GPTQ: 4 or 8 bits, packed along the inputs as MLX packs them, but with the words
//! of an input below each other. The first version of the format stores zeros less
//! one; `gptq_v2` stores them as they are.
//!
//! mlx-lm reads this method in the layout of AWQ and refuses every `g_idx`, which
//! published checkpoints have. Here the layout is GPTQ's own, and `g_idx` may be
//! there if it only counts groups: others would need the inputs in another order.
//!
//! Upstream: `sglang/srt/layers/quantization/gptq.py`.

use mlx::{Array, Dtype};
use nn::QuantSpec;
use serde_json::Value;

use super::{
    Import, Settings,
    group_order::put_words,
    packing::{biases, groups_per_scale, unpack},
    sources::{Module, for_modules},
};
use crate::LoadError;

const INTS: [Dtype; 2] = [Dtype::Int32, Dtype::Uint32];
const SCALES: [Dtype; 3] = [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32];

pub(super) fn import(settings: &Settings<'_>) -> Result<Import, LoadError> {
    settings.expect("checkpoint_format", &["gptq", "gptq_v2"])?;
    let bits = ("bits", &[4, 8][..]);
    let spec = match settings.get("group_size").and_then(Value::as_i64) {
        Some(-1) => settings.affine_rows(bits)?,
        _ => settings.affine(bits, 128)?,
    };
    let format = settings.get("checkpoint_format").and_then(|value| value.as_str());
    let zero_offset = if format == Some("gptq_v2") { 0.0 } else { 1.0 };
    let method = settings.method();
    Ok(Import::packed(settings.method(), spec, move |sources| {
        for_modules(method, "qweight", sources, |module| rewrite(module, spec, zero_offset))
    }))
}

fn rewrite(module: &mut Module<'_>, spec: QuantSpec, zero_offset: f32) -> Result<(), LoadError> {
    let bits = spec.bits;
    let (qweight, [words, out_dims]) = module.take_matrix("qweight", &INTS)?;
    let (scales, scale_shape) = module.take_matrix("scales", &SCALES)?;
    let (qzeros, zeros_shape) = module.take_matrix("qzeros", &INTS)?;
    let ([groups, _], in_dims) = (scale_shape, words * 32 / bits);
    let repeats = groups_per_scale(in_dims, groups, spec.group_size);
    let Some(repeats) = repeats.filter(|_| scale_shape == [groups, out_dims]) else {
        return Err(module.wrong_shape("scales", &scales));
    };
    if zeros_shape != [groups, out_dims * bits / 32] || !(out_dims * bits).is_multiple_of(32) {
        return Err(module.wrong_shape("qzeros", &qzeros));
    }
    let transpose = |words: &Array| words.transpose(&[1, 0]);
    put_words(module, (qweight, [out_dims, words]), [in_dims, groups], "g_idx", transpose)?;
    let like_scales = (vec![out_dims, groups * repeats], scales.dtype());
    module.put("biases", like_scales.clone(), vec![scales.clone(), qzeros], move |parts| {
        let zeros = unpack(&parts[1], bits)?.astype(Dtype::Float32)?.add_scalar(zero_offset)?;
        biases(&zeros, &parts[0])?.transpose(&[1, 0])?.repeat(repeats, 1)
    })?;
    module.put("scales", like_scales, vec![scales], move |parts| {
        parts[0].transpose(&[1, 0])?.repeat(repeats, 1)
    })
}
