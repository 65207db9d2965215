//! Every field of `config.json` that changes Qwen3's graphs, with and without
//! experts. A value that they do not follow fails here, not in the logits.

use nn::{Activation, HfConfig, LoadError};
use serde::Deserialize;

use crate::config::{check_kv_heads, check_sizes, default_act, is_tied};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Qwen3Config {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    pub(crate) vocab_size: usize,
    #[serde(default = "default_act")]
    pub(crate) hidden_act: Activation,
    pub(crate) rms_norm_eps: f32,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    #[serde(skip)]
    pub(crate) tie_word_embeddings: bool,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(flatten)]
    pub(crate) moe: MoeConfig,
}

/// Of models with experts; zeros without.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MoeConfig {
    pub(crate) num_experts: usize,
    pub(crate) num_experts_per_tok: usize,
    pub(crate) moe_intermediate_size: usize,
    pub(crate) norm_topk_prob: bool,
    /// Every so many layers have experts.
    decoder_sparse_step: Option<usize>,
    /// Layers that have none anyway.
    mlp_only_layers: Vec<usize>,
}

impl Qwen3Config {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn num_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Whether the layer has experts.
    pub(crate) fn has_experts(&self, layer_id: usize) -> bool {
        let step = self.moe.decoder_sparse_step.unwrap_or(1);
        self.moe.num_experts > 0
            && (layer_id + 1).is_multiple_of(step)
            && !self.moe.mlp_only_layers.contains(&layer_id)
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
            ("decoder_sparse_step", self.moe.decoder_sparse_step.unwrap_or(1)),
        ];
        check_sizes(&positive)?;
        check_kv_heads(self.num_attention_heads, self.num_kv_heads())?;
        if self.use_sliding_window {
            let value = "true".to_owned();
            return Err(LoadError::Unsupported { what: "use_sliding_window", value });
        }
        Ok(())
    }
}
