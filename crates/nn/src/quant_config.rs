//! Which modules of a checkpoint are quantized, and how.
//!
//! The rules are those of the MLX format: `{group_size, bits, mode}` for all,
//! one entry per module path that differs, `false` for a module that is not
//! quantized. An entry without a mode means affine, not the default's mode.
//!
//! Upstream: `sglang/srt/layers/quantization/base_config.py`.

use std::{collections::BTreeMap, fmt};

use mlx::quantized::QuantMode;
use serde_json::{Map, Value};

use crate::LoadError;

/// How one matrix is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantSpec {
    /// Input dimensions that share a scale.
    pub group_size: usize,
    /// Bits per element.
    pub bits: usize,
    /// Meaning of the packed bits and of the scales.
    pub mode: QuantMode,
}

impl QuantSpec {
    /// Whether the CPU device has a kernel of ours for it.
    pub fn has_cpu_kernel(self) -> bool {
        self.mode == QuantMode::Affine
            && kernels::cpu::supports_quantized(self.group_size, self.bits)
    }

    /// Group size and bits that a mode has when the config names none.
    pub fn of_mode(mode: QuantMode) -> Self {
        let (group_size, bits) = match mode {
            QuantMode::Affine => (64, 4),
            QuantMode::Mxfp4 => (32, 4),
            QuantMode::Nvfp4 => (16, 4),
            QuantMode::Mxfp8 => (32, 8),
        };
        Self { group_size, bits, mode }
    }

    /// The packing of a mode by name; group size and bits where they are given.
    ///
    /// # Errors
    /// MLX has no such packing.
    pub fn new(
        mode: &str,
        group_size: Option<usize>,
        bits: Option<usize>,
    ) -> Result<Self, LoadError> {
        let unsupported = |value: String| LoadError::Unsupported { what: "quantization", value };
        let default = mode.parse().map(Self::of_mode).map_err(|_| unsupported(mode.to_owned()))?;
        let spec = Self {
            group_size: group_size.unwrap_or(default.group_size),
            bits: bits.unwrap_or(default.bits),
            ..default
        };
        let is_affine = spec.mode == QuantMode::Affine;
        match (spec.group_size, spec.bits) {
            (32 | 64 | 128, 2..=6 | 8) if is_affine => Ok(spec),
            _ if !is_affine && spec == default => Ok(spec),
            _ => Err(unsupported(spec.to_string())),
        }
    }

    /// Whether the scales come with biases.
    pub fn has_biases(&self) -> bool {
        self.mode == QuantMode::Affine
    }

    /// Words of 32 bits that hold `in_dims` elements.
    pub fn packed_dims(&self, in_dims: usize) -> usize {
        in_dims * self.bits / 32
    }
}

impl fmt::Display for QuantSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-bit, group size {}", self.mode, self.bits, self.group_size)
    }
}

/// The `quantization` entry of config.json.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuantConfig {
    pub(crate) default: Option<QuantSpec>,
    /// By module path; `None` marks a module that is not quantized.
    pub(crate) overrides: BTreeMap<String, Option<QuantSpec>>,
}

impl QuantConfig {
    /// Every quantized module alike.
    pub fn uniform(spec: QuantSpec) -> Self {
        Self { default: Some(spec), overrides: BTreeMap::new() }
    }

    /// Adds an entry for one module; `None` excludes it.
    pub fn set(&mut self, path: impl Into<String>, spec: Option<QuantSpec>) {
        self.overrides.insert(path.into(), spec);
    }

    /// The spec for modules without an entry of their own.
    pub fn default_spec(&self) -> Option<QuantSpec> {
        self.default
    }

    /// The entry of `path`: absent, excluded, or quantized.
    pub fn entry(&self, path: &str) -> Option<Option<QuantSpec>> {
        self.overrides.get(path).copied()
    }

    /// Reads `quantization`, or `quantization_config` where that is absent.
    ///
    /// # Errors
    /// A method of another ecosystem that no import has replaced, an unknown mode, bits or
    /// a group size that are no numbers.
    pub fn from_config(config: &Map<String, Value>) -> Result<Self, LoadError> {
        let found = ["quantization", "quantization_config"]
            .into_iter()
            .find_map(|key| config.get(key).filter(|value| !value.is_null()));
        let Some(value) = found else { return Ok(Self::default()) };
        let Some(fields) = value.as_object() else {
            return Err(config_error("quantization", "expected an object"));
        };
        if let Some(method) = fields.get("quant_method") {
            let method = method.as_str().unwrap_or("?").to_owned();
            return Err(LoadError::QuantMethod { method });
        }
        let mut parsed =
            Self { default: spec("quantization", fields)?, overrides: BTreeMap::new() };
        for (path, entry) in fields {
            match entry {
                Value::Bool(false) => parsed.set(path, None),
                Value::Object(fields) => {
                    let field = format!("quantization.{path}");
                    let entry = spec(&field, fields)?;
                    parsed.set(path, Some(entry.unwrap_or(QuantSpec::of_mode(QuantMode::Affine))));
                }
                _ => {} // scalars of the default, and `true`, which says what absence says
            }
        }
        Ok(parsed)
    }
}

/// `None` if not one of the three fields is there.
fn spec(field: &str, fields: &Map<String, Value>) -> Result<Option<QuantSpec>, LoadError> {
    if !["group_size", "bits", "mode"].iter().any(|key| fields.contains_key(*key)) {
        return Ok(None);
    }
    let mode = match fields.get("mode") {
        None | Some(Value::Null) => QuantMode::Affine,
        Some(Value::String(name)) => name.parse().map_err(|_| LoadError::Unsupported {
            what: "quantization mode",
            value: name.clone(),
        })?,
        Some(_) => return Err(config_error(&format!("{field}.mode"), "expected a string")),
    };
    let number = |key: &str, default| match fields.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .and_then(|value| usize::try_from(value).ok())
            .filter(|&value| (1..=1024).contains(&value))
            .ok_or_else(|| config_error(&format!("{field}.{key}"), "expected a small number")),
    };
    let default = QuantSpec::of_mode(mode);
    let group_size = number("group_size", default.group_size)?;
    let bits = number("bits", default.bits)?;
    if !matches!(bits, 1..=6 | 8) {
        return Err(LoadError::Unsupported { what: "quantization bits", value: bits.to_string() });
    }
    Ok(Some(QuantSpec { group_size, bits, mode }))
}

fn config_error(field: &str, reason: &str) -> LoadError {
    LoadError::Config { file: "config.json", field: field.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<QuantConfig, LoadError> {
        QuantConfig::from_config(value.as_object().unwrap())
    }

    #[test]
    fn overrides_exclusions_and_mode_defaults() {
        let config = parse(json!({"quantization": {
            "group_size": 32, "bits": 4, "mode": "mxfp4",
            "lm_head": {"group_size": 64, "bits": 8},
            "model.embed_tokens": {"mode": "nvfp4"},
            "model.layers.0.mlp.gate": false,
        }}))
        .unwrap();
        let spec = |group_size, bits, mode| QuantSpec { group_size, bits, mode };
        assert_eq!(config.default_spec(), Some(spec(32, 4, QuantMode::Mxfp4)));
        assert_eq!(config.entry("lm_head"), Some(Some(spec(64, 8, QuantMode::Affine))));
        assert_eq!(config.entry("model.embed_tokens"), Some(Some(spec(16, 4, QuantMode::Nvfp4))));
        assert_eq!(config.entry("model.layers.0.mlp.gate"), Some(None));
        assert_eq!(config.entry("model.layers.1.mlp.gate"), None);
    }

    #[test]
    fn both_names_are_read_and_none_means_dense() {
        let config = parse(json!({"quantization_config": {"bits": 8}})).unwrap();
        let expected = QuantSpec { group_size: 64, bits: 8, mode: QuantMode::Affine };
        assert_eq!(config, QuantConfig::uniform(expected));
        assert_eq!(parse(json!({"quantization": null})).unwrap(), QuantConfig::default());
        assert_eq!(parse(json!({})).unwrap(), QuantConfig::default());
    }

    #[test]
    fn a_packing_by_name() {
        let new = |mode, group_size, bits| QuantSpec::new(mode, group_size, bits);
        let spec = |group_size, bits, mode| QuantSpec { group_size, bits, mode };
        assert_eq!(new("affine", None, None).unwrap(), spec(64, 4, QuantMode::Affine));
        assert_eq!(new("affine", Some(32), Some(3)).unwrap(), spec(32, 3, QuantMode::Affine));
        assert_eq!(new("nvfp4", None, Some(4)).unwrap(), spec(16, 4, QuantMode::Nvfp4));
        for (mode, group_size, bits, text) in [
            ("affine", Some(16), None, "affine 4-bit, group size 16"),
            ("affine", None, Some(7), "affine 7-bit, group size 64"),
            ("mxfp4", None, Some(8), "mxfp4 8-bit, group size 32"),
            ("ternary", None, None, "ternary"),
        ] {
            let error = new(mode, group_size, bits).unwrap_err().to_string();
            assert_eq!(error, format!("quantization \"{text}\" is not supported"));
        }
    }

    #[test]
    fn what_cannot_run_is_refused_by_name() {
        let text = |value| parse(value).unwrap_err().to_string();
        assert_eq!(
            text(json!({"quantization_config": {"quant_method": "gptq", "bits": 4}})),
            "quantization method \"gptq\" is not supported"
        );
        assert_eq!(
            text(json!({"quantization": {"mode": "ternary"}})),
            "quantization mode \"ternary\" is not supported"
        );
        assert_eq!(
            text(json!({"quantization": {"bits": 7}})),
            "quantization bits \"7\" is not supported"
        );
        assert_eq!(
            text(json!({"quantization": {"group_size": -1}})),
            "config.json: quantization.group_size: expected a small number"
        );
        assert_eq!(
            text(json!({"quantization": 4})),
            "config.json: quantization: expected an object"
        );
    }
}
