//! A parsed `config.json`: the facts every model shares, and the raw map that
//! each model file parses into its own struct.
//!
//! Upstream: `sglang/srt/configs/model_config.py`,
//! `sglang/srt/utils/hf_transformers_utils.py`.

use mlx::Dtype;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{LoadError, QuantConfig};

mod generation;
mod tagged_float;
#[cfg(test)]
mod tests;

pub use generation::GenerationConfig;

const FILE: &str = "config.json";

/// Context length of a model that names none.
const DEFAULT_CONTEXT_LENGTH: usize = 2048;

/// Fields that may hold the context length, the first one present rules.
const CONTEXT_LENGTH_KEYS: [&str; 5] = [
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "model_max_length",
    "max_position_embeddings",
];

/// `config.json` of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct HfConfig {
    raw: Map<String, Value>,
    architectures: Vec<String>,
    eos_token_ids: Vec<u32>,
    dtype: Option<Dtype>,
    quant: QuantConfig,
    context_length: usize,
}

impl HfConfig {
    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// No JSON object, or a shared field of the wrong type.
    pub fn from_json(text: &str) -> Result<Self, LoadError> {
        Self::with_overrides(text, "{}")
    }

    /// Parses a `config.json`, with `--json-model-override-args` laid over its
    /// top level.
    ///
    /// # Errors
    /// One of the two is no JSON object, or a shared field has the wrong type.
    pub fn with_overrides(text: &str, override_args: &str) -> Result<Self, LoadError> {
        Self::from_map(Self::merged(text, override_args)?)
    }

    /// The map of [`HfConfig::with_overrides`], for changes before it is parsed.
    ///
    /// # Errors
    /// One of the two is no JSON object.
    pub fn merged(text: &str, override_args: &str) -> Result<Map<String, Value>, LoadError> {
        let mut raw = object(FILE, text)?;
        raw.extend(object("--json-model-override-args", override_args)?);
        Ok(raw)
    }

    /// Takes a map that was put together elsewhere, as from a GGUF file.
    ///
    /// # Errors
    /// A shared field of the wrong type.
    pub fn from_map(raw: Map<String, Value>) -> Result<Self, LoadError> {
        let mut config = Self {
            architectures: Vec::new(),
            eos_token_ids: Vec::new(),
            dtype: None,
            quant: QuantConfig::from_config(&raw)?,
            context_length: DEFAULT_CONTEXT_LENGTH,
            raw,
        };
        config.architectures = config.field("architectures")?.unwrap_or_default();
        config.eos_token_ids = token_ids(FILE, config.get("eos_token_id"))?.unwrap_or_default();
        config.dtype = config.parse_dtype()?;
        config.context_length = config.parse_context_length()?;
        Ok(config)
    }

    /// `architectures`; empty if absent.
    pub fn architectures(&self) -> &[String] {
        &self.architectures
    }

    /// `model_type`.
    pub fn model_type(&self) -> Option<&str> {
        self.raw.get("model_type").and_then(Value::as_str)
    }

    /// `eos_token_id`, one or several; empty if absent.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    /// `dtype` or `torch_dtype`, if it is one that can be computed in.
    pub fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// `quantization` or `quantization_config`.
    pub fn quant(&self) -> &QuantConfig {
        &self.quant
    }

    /// Tokens of prompt and completion together. Rope scaling by a factor
    /// stretches it, unless the scaling names the length it started from.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// A field, at the top level or else in `text_config`.
    pub fn get(&self, field: &str) -> Option<&Value> {
        let present = |value: &&Value| !value.is_null();
        let top = self.raw.get(field).filter(present);
        top.or_else(|| self.raw.get("text_config")?.get(field).filter(present))
    }

    /// The whole map.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }

    /// The language model's part: `text_config` where there is one.
    pub fn text_config(&self) -> &Map<String, Value> {
        self.raw.get("text_config").and_then(Value::as_object).unwrap_or(&self.raw)
    }

    /// The language model's part as a config of its own, with what the whole says about
    /// packing, element type, heads and ends of sequences.
    ///
    /// # Errors
    /// A shared field of the wrong type.
    pub fn text(&self) -> Result<Self, LoadError> {
        const SHARED: [&str; 6] = [
            "quantization",
            "quantization_config",
            "dtype",
            "torch_dtype",
            "tie_word_embeddings",
            "eos_token_id",
        ];
        let mut raw = self.text_config().clone();
        for field in SHARED {
            if let Some(value) = self.raw.get(field).filter(|_| !raw.contains_key(field)) {
                raw.insert(field.to_owned(), value.clone());
            }
        }
        Self::from_map(raw)
    }

    /// Parses the fields that one model needs. Unknown fields are ignored; the
    /// tagged floats of mlx-lm (`{"__float__": "Infinity"}`) are numbers.
    ///
    /// # Errors
    /// Names the field, down to a nested one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        tagged_float::parse(&self.raw).map_err(|(field, reason)| LoadError::Config {
            file: FILE,
            field,
            reason,
        })
    }

    /// [`HfConfig::parse`] for the fields in `text_config`.
    ///
    /// # Errors
    /// Names the field, down to a nested one.
    pub fn parse_text<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        tagged_float::parse(self.text_config()).map_err(|(field, reason)| LoadError::Config {
            file: FILE,
            field,
            reason,
        })
    }

    /// One field of type `T`.
    fn field<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>, LoadError> {
        self.get(field).map(|value| typed(FILE, field, value)).transpose()
    }

    fn parse_dtype(&self) -> Result<Option<Dtype>, LoadError> {
        let name: Option<String> = match self.field("dtype")? {
            None => self.field("torch_dtype")?,
            found => found,
        };
        Ok(match name.as_deref().map(|name| name.trim_start_matches("torch.")) {
            Some("bfloat16") => Some(Dtype::Bfloat16),
            Some("float16" | "half") => Some(Dtype::Float16),
            Some("float32" | "float") => Some(Dtype::Float32),
            _ => None,
        })
    }

    fn parse_context_length(&self) -> Result<usize, LoadError> {
        let Some(key) = CONTEXT_LENGTH_KEYS.into_iter().find(|key| self.get(key).is_some()) else {
            return Ok(DEFAULT_CONTEXT_LENGTH);
        };
        // Some configs write 1e30 for "no limit": a float, and too large for an
        // index. The cast saturates, which says the same.
        let length: f64 = self.field(key)?.expect("found above");
        if length < 1.0 {
            return Err(config_error(FILE, key, "expected a positive number"));
        }
        let length = (length * self.rope_stretch()).floor();
        Ok(if length >= u32::MAX.into() { u32::MAX as usize } else { length as usize })
    }

    /// How much rope scaling stretches the context beyond the field's value.
    fn rope_stretch(&self) -> f64 {
        let scaling = self.get("rope_scaling").or_else(|| self.get("rope_parameters"));
        let Some(scaling) = scaling.and_then(Value::as_object) else { return 1.0 };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        let starts_from = "original_max_position_embeddings";
        if scaling.contains_key(starts_from) || kind.and_then(Value::as_str) == Some("llama3") {
            return 1.0;
        }
        let factor = scaling.get("factor").and_then(Value::as_f64);
        factor.filter(|factor| factor.is_finite() && *factor >= 1.0).unwrap_or(1.0)
    }
}

/// Parses a JSON object, or what Python takes for one.
fn object(file: &'static str, text: &str) -> Result<Map<String, Value>, LoadError> {
    let text = tagged_float::tag_bare(text);
    serde_json::from_str(&text).map_err(|error| config_error(file, "JSON", &error.to_string()))
}

fn typed<T: DeserializeOwned>(
    file: &'static str,
    field: &str,
    value: &Value,
) -> Result<T, LoadError> {
    T::deserialize(value).map_err(|error| config_error(file, field, &error.to_string()))
}

/// One token id or a list of them.
fn token_ids(file: &'static str, value: Option<&Value>) -> Result<Option<Vec<u32>>, LoadError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(list @ Value::Array(_)) => typed(file, "eos_token_id", list).map(Some),
        Some(one) => typed(file, "eos_token_id", one).map(|id| Some(vec![id])),
    }
}

fn config_error(file: &'static str, field: &str, reason: &str) -> LoadError {
    LoadError::Config { file, field: field.to_owned(), reason: reason.to_owned() }
}
