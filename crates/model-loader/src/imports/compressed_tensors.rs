//! compressed-tensors, a container of several packings: integers of 4 and 8 bits,
//! MXFP4, NVFP4, FP8.
//!
//! Upstream: `sglang/srt/layers/quantization/compressed_tensors/`.

use mlx::{Dtype, quantized::QuantMode};
use nn::QuantSpec;
use serde_json::Value;

use super::{
    Import, Settings, fp8,
    group_order::put_words,
    nvfp4::{self, GlobalScale},
    packing::{biases, groups_per_scale, unpack},
    sources::{Module, drop_activation_scales, for_modules},
};
use crate::LoadError;

const SCALES: [Dtype; 3] = [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32];

pub(super) fn import(settings: &Settings<'_>) -> Result<Import, LoadError> {
    settings.expect("quantization_status", &["compressed"])?;
    let method = settings.method();
    let weights = weights(settings)?;
    match settings.get("format").and_then(Value::as_str) {
        Some("float-quantized") => {
            let block = weights.block("block_structure")?;
            Ok(Import::dense(settings.method(), move |sources| {
                fp8::to_dense(method, block, sources)
            }))
        }
        Some("mxfp4-pack-quantized") => {
            Ok(Import::packed_as(settings.method(), QuantMode::Mxfp4, move |sources| {
                drop_activation_scales(sources);
                for_modules(method, "weight_packed", sources, to_mxfp4)
            }))
        }
        Some("nvfp4-pack-quantized") => Ok(Import::dense(settings.method(), move |sources| {
            drop_activation_scales(sources);
            let global = ("weight_global_scale", GlobalScale::Divisor);
            for_modules(method, "weight_packed", sources, |module| {
                nvfp4::to_dense(module, "weight_packed", global)
            })
        })),
        Some("pack-quantized") => {
            weights.expect("type", &["int"])?;
            weights.expect("strategy", &["channel", "group"])?;
            let bits = ("num_bits", &[4, 8][..]);
            let spec = match weights.get("strategy").and_then(Value::as_str) {
                Some("channel") => weights.affine_rows(bits)?,
                _ => weights.affine(bits, 32)?,
            };
            Ok(Import::packed(settings.method(), spec, move |sources| {
                drop_activation_scales(sources);
                for_modules(method, "weight_packed", sources, |module| to_affine(module, spec))
            }))
        }
        _ => Err(settings.refuse("format")),
    }
}

/// What all groups of modules say about their weights.
fn weights<'a>(settings: &Settings<'a>) -> Result<Settings<'a>, LoadError> {
    let groups = settings.get("config_groups").and_then(Value::as_object);
    let all: Vec<_> = groups.into_iter().flatten().map(|(_, group)| &group["weights"]).collect();
    let Some(first) = all.first() else { return Ok(settings.clone()) };
    match first.as_object() {
        Some(fields) if all.iter().all(|other| other == first) => Ok(settings.within(fields)),
        _ => Err(settings.refuse("config_groups")),
    }
}

fn to_mxfp4(module: &mut Module<'_>) -> Result<(), LoadError> {
    let (weight, [rows, half]) = module.take_matrix("weight_packed", &[Dtype::Uint8])?;
    let (scales, groups) = module.take_matrix("weight_scale", &[Dtype::Uint8])?;
    if groups != [rows, half / 16] || !half.is_multiple_of(16) {
        return Err(module.wrong_shape("weight_scale", &scales));
    }
    let words = (vec![rows, half / 4], Dtype::Uint32);
    module.put("weight", words, vec![weight], |parts| parts[0].view(Dtype::Uint32))?;
    let groups = (groups.to_vec(), Dtype::Uint8);
    module.put("scales", groups, vec![scales], |parts| Ok(parts[0].clone()))
}

/// Rows are packed as in MLX. Zeros, where there are any, are packed along the
/// outputs; without them elements count from the middle.
fn to_affine(module: &mut Module<'_>, spec: QuantSpec) -> Result<(), LoadError> {
    let bits = spec.bits;
    let (packed, shape) = module.take_matrix("weight_packed", &[Dtype::Int32])?;
    let (scales, scale_shape) = module.take_matrix("weight_scale", &SCALES)?;
    let ([rows, groups], in_dims) = (scale_shape, shape[1] * 32 / bits);
    let repeats = groups_per_scale(in_dims, groups, spec.group_size);
    let Some(repeats) = repeats.filter(|_| rows == shape[0]) else {
        return Err(module.wrong_shape("weight_scale", &scales));
    };
    module.take_optional("weight_shape");
    let dims = [in_dims, groups];
    put_words(module, (packed, shape), dims, "weight_g_idx", |words| Ok(words.clone()))?;
    let like_scales = (vec![rows, groups * repeats], scales.dtype());
    let both = match module.take_optional("weight_zero_point") {
        None => vec![scales.clone()],
        Some(zeros) if is_packed_along_rows(zeros.shape(), [rows, groups], bits) => {
            vec![scales.clone(), zeros]
        }
        Some(zeros) => return Err(module.wrong_shape("weight_zero_point", &zeros)),
    };
    module.put("biases", like_scales.clone(), both, move |parts| match parts.get(1) {
        None => parts[0].mul_scalar(-((1 << (bits - 1)) as f32))?.repeat(repeats, 1),
        Some(zeros) => {
            let zeros = unpack(&zeros.transpose(&[1, 0])?.contiguous()?, bits)?;
            biases(&zeros.transpose(&[1, 0])?, &parts[0])?.repeat(repeats, 1)
        }
    })?;
    module.put("scales", like_scales, vec![scales], move |parts| parts[0].repeat(repeats, 1))
}

fn is_packed_along_rows(shape: &[usize], [rows, groups]: [usize; 2], bits: usize) -> bool {
    (rows * bits).is_multiple_of(32) && shape == [rows * bits / 32, groups]
}
