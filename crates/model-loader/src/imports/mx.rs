//! MXFP4 and MXFP8 under the names of MLX: only config.json differs.
//!
//! Upstream: `sglang/srt/layers/quantization/mxfp4.py`.

use mlx::quantized::QuantMode;

use super::{Import, Settings};
use crate::LoadError;

pub(super) fn import_mxfp4(settings: &Settings<'_>) -> Result<Import, LoadError> {
    Ok(Import::packed_as(settings.method(), QuantMode::Mxfp4, |_| Ok(())))
}

pub(super) fn import_mxfp8(settings: &Settings<'_>) -> Result<Import, LoadError> {
    Ok(Import::packed_as(settings.method(), QuantMode::Mxfp8, |_| Ok(())))
}
