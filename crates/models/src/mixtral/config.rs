//! Every field of `config.json` that changes Mixtral's graph. A value that it does
//! not follow fails here, not in the logits.

use nn::{Activation, HfConfig, LoadError, RopeConfig};
use serde::Deserialize;

use crate::config::{check_kv_heads, check_sizes, default_act, is_tied, with_default_theta};

/// Base of the rotary frequencies where config.json names none.
const DEFAULT_THETA: f32 = 1e6;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct MixtralConfig {
    pub(super) hidden_size: usize,
    /// Inner width of an expert.
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    pub(super) vocab_size: usize,
    #[serde(default = "default_act")]
    pub(super) hidden_act: Activation,
    pub(super) rms_norm_eps: f32,
    #[serde(default = "eight")]
    pub(super) num_local_experts: usize,
    #[serde(default = "two")]
    pub(super) num_experts_per_tok: usize,
    /// Tokens that a layer looks back, itself included; absent: all.
    pub(super) sliding_window: Option<usize>,
    #[serde(skip)]
    pub(super) tie_word_embeddings: bool,
}

impl MixtralConfig {
    pub(super) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.check()?;
        Ok(config)
    }

    pub(super) fn num_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(super) fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn check(&self) -> Result<(), LoadError> {
        let positive = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_kv_heads()),
            ("vocab_size", self.vocab_size),
            ("head_dim", self.head_dim()),
            ("num_local_experts", self.num_local_experts),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        check_sizes(&positive)?;
        check_kv_heads(self.num_attention_heads, self.num_kv_heads())?;
        Ok(())
    }
}

pub(super) fn rope(hf: &HfConfig) -> Result<RopeConfig, LoadError> {
    Ok(with_default_theta(RopeConfig::from_config(hf)?, hf, DEFAULT_THETA))
}

fn eight() -> usize {
    8
}

fn two() -> usize {
    2
}
