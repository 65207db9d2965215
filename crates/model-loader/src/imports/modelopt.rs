//! ModelOpt: NVFP4 and FP8.
//!
//! Upstream: `sglang/srt/layers/quantization/modelopt_quant.py`.

use serde_json::Value;

use super::{
    Import, Settings, fp8,
    nvfp4::{self, GlobalScale},
    sources::{drop_activation_scales, for_modules},
};
use crate::LoadError;

pub(super) fn import(settings: &Settings<'_>) -> Result<Import, LoadError> {
    // A file of its own nests the settings, config.json does not.
    let nested = settings.get("quantization").and_then(Value::as_object);
    let settings = nested.map_or_else(|| settings.clone(), |fields| settings.within(fields));
    let method = settings.method();
    match settings.get("quant_algo").and_then(Value::as_str) {
        Some("FP8") => Ok(Import::dense(settings.method(), move |sources| {
            fp8::to_dense(method, None, sources)
        })),
        Some("NVFP4") if settings.number("group_size", 16)? == 16 => {
            Ok(Import::dense(settings.method(), move |sources| {
                drop_activation_scales(sources);
                let global = ("weight_scale_2", GlobalScale::Factor);
                for_modules(method, global.0, sources, |module| {
                    nvfp4::to_dense(module, "weight", global)
                })
            }))
        }
        Some("NVFP4") => Err(settings.refuse("group_size")),
        _ => Err(settings.refuse("quant_algo")),
    }
}
