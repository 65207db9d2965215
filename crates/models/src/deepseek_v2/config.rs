//! Every field of `config.json` that changes DeepSeek's graphs. A value that they do not
//! follow fails here, not in the logits.

use nn::{HfConfig, LoadError, RopeConfig};
use serde::Deserialize;

use crate::{
    config::{check_sizes, is_tied},
    deepseek_moe::MoeConfig,
    mla::MlaConfig,
};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeepseekConfig {
    #[serde(flatten)]
    pub(crate) mla: MlaConfig,
    #[serde(flatten)]
    pub(crate) moe: MoeConfig,
    pub(crate) num_hidden_layers: usize,
    pub(crate) vocab_size: usize,
    pub(crate) rms_norm_eps: f32,
    #[serde(skip)]
    pub(crate) tie_word_embeddings: bool,
}

impl DeepseekConfig {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.mla.check()?;
        config.moe.check()?;
        check_sizes(&[
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
        ])?;
        Ok(config)
    }

    /// As V3 and the models that follow it have it.
    pub(crate) fn v3(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config = Self::new(hf)?;
        config.mla.splits_kv_b = true;
        config.moe.as_v3()?;
        Ok(config)
    }

    /// Pairs that rotate are neighbours.
    pub(crate) fn rope(hf: &HfConfig) -> Result<RopeConfig, LoadError> {
        Ok(RopeConfig { traditional: true, ..RopeConfig::from_config(hf)? })
    }
}
