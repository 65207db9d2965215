//! Every field of `config.json` that changes gpt-oss's graph. A value that it does not
//! follow fails here, not in the logits.

use nn::{HfConfig, LoadError, RopeConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::config::{LayerType, check_heads, check_sizes, config_error, is_tied, sliding_layers};

/// Base of the rotary frequencies where config.json names none.
const DEFAULT_THETA: f32 = 150_000.0;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct GptOssConfig {
    pub(super) hidden_size: usize,
    /// Inner width of an expert.
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    #[serde(default = "sixty_four")]
    pub(super) head_dim: usize,
    pub(super) vocab_size: usize,
    #[serde(default = "default_eps")]
    pub(super) rms_norm_eps: f32,
    pub(super) num_local_experts: usize,
    #[serde(default = "four")]
    pub(super) num_experts_per_tok: usize,
    /// Bound of gates and values inside an expert.
    #[serde(default = "seven")]
    pub(super) swiglu_limit: f32,
    /// Tokens that a sliding layer looks back, itself included.
    pub(super) sliding_window: usize,
    layer_types: Option<Vec<LayerType>>,
    /// By layer.
    #[serde(skip)]
    pub(super) slides: Vec<bool>,
}

impl GptOssConfig {
    pub(super) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.check()?;
        check_fixed(hf)?;
        config.slides = sliding_layers(config.layer_types.as_deref(), 2, config.num_hidden_layers)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
            ("num_local_experts", self.num_local_experts),
            ("sliding_window", self.sliding_window),
        ])?;
        if self.swiglu_limit <= 0.0 {
            return Err(config_error("swiglu_limit", "must be positive".to_owned()));
        }
        let heads = [self.num_attention_heads, self.num_key_value_heads];
        check_heads(self.hidden_size, heads, Some(self.head_dim))
    }
}

/// Fields that could say something else than all checkpoints of the family do.
fn check_fixed(hf: &HfConfig) -> Result<(), LoadError> {
    let refuse = |what, value: String| Err(LoadError::Unsupported { what, value });
    if let Some(bias) = hf.get("attention_bias").filter(|bias| **bias != Value::Bool(true)) {
        return refuse("attention_bias", bias.to_string());
    }
    if let Some(act) = hf.get("hidden_act").filter(|act| *act != "silu") {
        return refuse("hidden_act", act.as_str().unwrap_or("?").to_owned());
    }
    if is_tied(hf)? {
        return refuse("tie_word_embeddings", "true".to_owned());
    }
    Ok(())
}

pub(super) fn rope(hf: &HfConfig) -> Result<RopeConfig, LoadError> {
    let mut rope = RopeConfig::from_config(hf)?;
    let nested = hf.get("rope_parameters").and_then(|parameters| parameters.get("rope_theta"));
    if hf.get("rope_theta").or(nested).is_none() {
        rope.theta = DEFAULT_THETA;
    }
    Ok(rope)
}

fn sixty_four() -> usize {
    64
}

fn default_eps() -> f32 {
    1e-5
}

fn four() -> usize {
    4
}

fn seven() -> f32 {
    7.0
}
