//! MXFP4 and MXFP8 under the names of MLX, where only config.json differs, and MXFP4 as OpenAI
//! publishes it: `X_blocks` `[..., groups, 16]`, sixteen bytes of elements for each of the
//! `X_scales` `[..., groups]`. Their bits are those of MLX.
//!
//! Upstream: `sglang/srt/layers/quantization/mxfp4.py`.

use std::rc::Rc;

use mlx::{Array, Dtype, quantized::QuantMode};
use nn::TensorSource;

use super::{
    Import, Settings, Sources,
    sources::{Derived, insert},
};
use crate::{ImportProblem, LoadError};

/// Bytes of elements that share a scale.
const BLOCK_BYTES: usize = 16;

pub(super) fn import_mxfp4(settings: &Settings<'_>) -> Result<Import, LoadError> {
    let method = settings.method();
    Ok(Import::packed_as(method, QuantMode::Mxfp4, move |sources| join_blocks(method, sources)))
}

pub(super) fn import_mxfp8(settings: &Settings<'_>) -> Result<Import, LoadError> {
    Ok(Import::packed_as(settings.method(), QuantMode::Mxfp8, |_| Ok(())))
}

/// `X_blocks` and `X_scales` become `X.weight` and `X.scales`.
fn join_blocks(method: &'static str, sources: &mut Sources) -> Result<(), LoadError> {
    let modules: Vec<String> =
        sources.keys().filter_map(|name| Some(name.strip_suffix("_blocks")?.to_owned())).collect();
    for module in modules {
        let blocks = take_bytes(method, format!("{module}_blocks"), sources)?;
        let scales = take_bytes(method, format!("{module}_scales"), sources)?;
        let [groups @ .., BLOCK_BYTES] = blocks.shape() else {
            return Err(wrong_shape(method, &module, &blocks));
        };
        if groups != scales.shape() {
            return Err(wrong_shape(method, &module, &blocks));
        }
        let shape = words(groups);
        let name = format!("{module}.weight");
        let place = name.clone();
        let make = move |parts: &[Array]| {
            let joined = parts[0].view(Dtype::Uint32).and_then(|words| words.flatten(-2, -1));
            joined.map_err(|source| nn::LoadError::Place { name: place.clone(), source })
        };
        let (dtype, parts, make) = (Dtype::Uint32, vec![blocks], Box::new(make));
        let weight = Derived { name: name.clone(), shape, dtype, parts, make };
        insert(sources, name, Rc::new(weight))?;
        insert(sources, format!("{module}.scales"), scales)?;
    }
    Ok(())
}

/// Removes a tensor of bytes from the list.
fn take_bytes(
    method: &'static str,
    tensor: String,
    sources: &mut Sources,
) -> Result<Rc<dyn TensorSource>, LoadError> {
    let found = sources.remove(&tensor);
    let refuse = |problem| Err(LoadError::ImportTensor { method, tensor, problem });
    match found {
        None => refuse(ImportProblem::Missing),
        Some(found) if found.dtype() != Dtype::Uint8 => refuse(ImportProblem::Type(found.dtype())),
        Some(found) => Ok(found),
    }
}

fn wrong_shape(method: &'static str, module: &str, blocks: &Rc<dyn TensorSource>) -> LoadError {
    let problem = ImportProblem::Shape(blocks.shape().to_vec());
    LoadError::ImportTensor { method, tensor: format!("{module}_blocks"), problem }
}

/// Shape of the words of `[..., groups]` blocks.
fn words(groups: &[usize]) -> Vec<usize> {
    let mut shape = groups.to_vec();
    if let Some(last) = shape.last_mut() {
        *last *= BLOCK_BYTES / 4;
    }
    shape
}
