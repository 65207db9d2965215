//! Checkpoints that other tools quantized, in the packing of MLX.
//!
//! An import rewrites the list of tensors before a model sees it: `X.qweight`,
//! `X.qzeros` and `X.scales` become `X.weight`, `X.scales` and `X.biases`, each
//! computed when the model takes it. What MLX has no packed form for becomes a
//! dense `X.weight` in bf16. Modules that a tool left alone hold a plain `weight`
//! already, so lists of exceptions need no reading.
//!
//! Upstream: `sglang/srt/layers/quantization/__init__.py`.

use mlx::quantized::QuantMode;
use nn::QuantSpec;
use serde_json::{Map, Value, json};

use crate::LoadError;

mod awq;
mod compressed_tensors;
mod float8;
mod fp8;
mod gptq;
mod group_order;
mod modelopt;
mod mx;
mod nvfp4;
mod packing;
mod settings;
mod sources;
#[cfg(test)]
mod tests;

use settings::Settings;
pub(crate) use sources::Sources;

/// How a checkpoint becomes one of ours.
pub(crate) struct Import {
    method: &'static str,
    /// How the matrices are packed afterwards; `None` if they are dense.
    spec: Option<QuantSpec>,
    rewrite: Rewrite,
}

type Rewrite = Box<dyn Fn(&mut Sources) -> Result<(), LoadError>>;

/// One `quant_method`.
struct Method {
    name: &'static str,
    import: fn(&Settings<'_>) -> Result<Import, LoadError>,
}

/// Sorted by name.
const METHODS: &[Method] = &[
    Method { name: "awq", import: awq::import },
    Method { name: "compressed-tensors", import: compressed_tensors::import },
    Method { name: "fbgemm_fp8", import: fp8::import },
    Method { name: "fp8", import: fp8::import },
    Method { name: "gptq", import: gptq::import },
    Method { name: "modelopt", import: modelopt::import },
    Method { name: "mxfp4", import: mx::import_mxfp4 },
    Method { name: "mxfp8", import: mx::import_mxfp8 },
];

/// Finds the method of `quantization_config` and puts in its place what is true
/// after the import. `None` if there is nothing to import.
///
/// # Errors
/// A method, or a setting of it, that cannot be imported.
pub(crate) fn claim(config: &mut Map<String, Value>) -> Result<Option<Import>, LoadError> {
    const FIELD: &str = "quantization_config";
    if config.get("quantization").is_some_and(|value| !value.is_null()) {
        return Ok(None);
    }
    let text_config = || config.get("text_config").and_then(|text| text.get(FIELD));
    let found = config.get(FIELD).filter(|value| !value.is_null()).or_else(text_config);
    let Some(fields) = found.and_then(Value::as_object) else { return Ok(None) };
    let Some(name) = fields.get("quant_method") else { return Ok(None) };
    let name = name.as_str().unwrap_or("?");
    let Some(method) = METHODS.iter().find(|method| method.name == name) else {
        return Err(nn::LoadError::QuantMethod { method: name.to_owned() }.into());
    };
    let import = (method.import)(&Settings::new(method.name, fields))?;
    config.remove(FIELD);
    if let Some(QuantSpec { group_size, bits, mode }) = import.spec {
        let packing = json!({"group_size": group_size, "bits": bits, "mode": mode.name()});
        config.insert("quantization".to_owned(), packing);
    }
    Ok(Some(import))
}

impl Import {
    fn packed(
        method: &'static str,
        spec: QuantSpec,
        rewrite: impl Fn(&mut Sources) -> Result<(), LoadError> + 'static,
    ) -> Self {
        Self { method, spec: Some(spec), rewrite: Box::new(rewrite) }
    }

    fn packed_as(
        method: &'static str,
        mode: QuantMode,
        rewrite: impl Fn(&mut Sources) -> Result<(), LoadError> + 'static,
    ) -> Self {
        Self::packed(method, QuantSpec::of_mode(mode), rewrite)
    }

    fn dense(
        method: &'static str,
        rewrite: impl Fn(&mut Sources) -> Result<(), LoadError> + 'static,
    ) -> Self {
        Self { method, spec: None, rewrite: Box::new(rewrite) }
    }

    /// `quant_method`.
    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// Puts the tensors of MLX in the place of the others.
    ///
    /// # Errors
    /// A tensor that the method does not explain.
    pub(crate) fn rewrite(&self, sources: &mut Sources) -> Result<(), LoadError> {
        (self.rewrite)(sources)
    }
}
