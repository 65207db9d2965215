//! `generation_config.json`: what the model's makers sample with.
//!
//! Upstream: `ModelConfig.get_default_sampling_params`.

use serde_json::Value;

use super::{object, token_ids, typed};
use crate::LoadError;

const FILE: &str = "generation_config.json";

/// The fields that serving uses. All absent without the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Replaces config.json's ids.
    pub eos_token_ids: Option<Vec<u32>>,
    /// Default of requests that name none.
    pub temperature: Option<f32>,
    /// Default of requests that name none.
    pub top_k: Option<i32>,
    /// Default of requests that name none.
    pub top_p: Option<f32>,
    /// Default of requests that name none.
    pub min_p: Option<f32>,
    /// Default of requests that name none.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Parses the text of a `generation_config.json`.
    ///
    /// # Errors
    /// No JSON object, or a field above of the wrong type.
    pub fn from_json(text: &str) -> Result<Self, LoadError> {
        let raw = object(FILE, text)?;
        let present = |field: &str| raw.get(field).filter(|value: &&Value| !value.is_null());
        let float = |field: &str| present(field).map(|value| typed(FILE, field, value)).transpose();
        Ok(Self {
            eos_token_ids: token_ids(FILE, raw.get("eos_token_id"))?,
            temperature: float("temperature")?,
            top_k: present("top_k").map(|value| typed(FILE, "top_k", value)).transpose()?,
            top_p: float("top_p")?,
            min_p: float("min_p")?,
            repetition_penalty: float("repetition_penalty")?,
        })
    }
}
