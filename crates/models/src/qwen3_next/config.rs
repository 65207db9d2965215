//! Every field of `config.json` that changes the graphs of Qwen3-Next and Qwen3.5. A
//! value that they do not follow fails here, not in the logits.

use nn::{Activation, HfConfig, LoadError};
use serde::Deserialize;

use crate::{
    config::{check_heads, check_length, check_sizes, config_error, default_act, is_tied},
    gated_delta_net::DeltaDims,
};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HybridConfig {
    pub(crate) hidden_size: usize,
    #[serde(default)]
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    head_dim: Option<usize>,
    pub(crate) vocab_size: usize,
    #[serde(default = "default_act")]
    pub(crate) hidden_act: Activation,
    pub(crate) rms_norm_eps: f32,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    #[serde(skip)]
    pub(crate) tie_word_embeddings: bool,
    /// Whether attention's output has gates, as all published models' has.
    attn_output_gate: Option<bool>,
    linear_num_key_heads: usize,
    linear_num_value_heads: usize,
    linear_key_head_dim: usize,
    linear_value_head_dim: usize,
    linear_conv_kernel_dim: usize,
    /// Every so many layers have attention.
    #[serde(default = "default_interval")]
    full_attention_interval: usize,
    layer_types: Option<Vec<LayerType>>,
    #[serde(flatten)]
    pub(crate) moe: MoeConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    LinearAttention,
}

/// Of models with experts; zeros without.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MoeConfig {
    pub(crate) num_experts: usize,
    pub(crate) num_experts_per_tok: usize,
    pub(crate) moe_intermediate_size: usize,
    pub(crate) shared_expert_intermediate_size: usize,
    pub(crate) norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<usize>,
    mlp_only_layers: Vec<usize>,
}

fn default_interval() -> usize {
    4
}

impl HybridConfig {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Whether the layer has attention; the others are recurrent.
    pub(crate) fn has_attention(&self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.full_attention_interval)
    }

    /// Layers of the same kind before this one: its place in the pool.
    pub(crate) fn place(&self, layer: usize) -> usize {
        let kind = self.has_attention(layer);
        (0..layer).filter(|&other| self.has_attention(other) == kind).count()
    }

    /// Whether the layer has experts.
    pub(crate) fn has_experts(&self, layer: usize) -> bool {
        let step = self.moe.decoder_sparse_step.unwrap_or(1);
        self.moe.num_experts > 0
            && (layer + 1).is_multiple_of(step)
            && !self.moe.mlp_only_layers.contains(&layer)
    }

    pub(crate) fn delta_dims(&self) -> DeltaDims {
        DeltaDims {
            hidden: self.hidden_size,
            key_heads: self.linear_num_key_heads,
            value_heads: self.linear_num_value_heads,
            key_dim: self.linear_key_head_dim,
            value_dim: self.linear_value_head_dim,
            taps: self.linear_conv_kernel_dim,
            eps: self.rms_norm_eps,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let moe = &self.moe;
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
            ("linear_num_key_heads", self.linear_num_key_heads),
            ("linear_num_value_heads", self.linear_num_value_heads),
            ("linear_key_head_dim", self.linear_key_head_dim),
            ("linear_value_head_dim", self.linear_value_head_dim),
            ("full_attention_interval", self.full_attention_interval),
            ("decoder_sparse_step", moe.decoder_sparse_step.unwrap_or(1)),
        ])?;
        let kv_heads = self.num_key_value_heads;
        check_heads(self.hidden_size, [self.num_attention_heads, kv_heads], self.head_dim)?;
        let layers = 0..self.num_hidden_layers;
        if layers.clone().any(|layer| !self.has_experts(layer)) {
            check_sizes(&[("intermediate_size", self.intermediate_size)])?;
        }
        if layers.clone().any(|layer| self.has_experts(layer)) {
            check_sizes(&[
                ("num_experts_per_tok", moe.num_experts_per_tok),
                ("moe_intermediate_size", moe.moe_intermediate_size),
                ("shared_expert_intermediate_size", moe.shared_expert_intermediate_size),
            ])?;
        }
        if !self.linear_num_value_heads.is_multiple_of(self.linear_num_key_heads) {
            let reason = "must be a multiple of linear_num_key_heads".to_owned();
            return Err(config_error("linear_num_value_heads", reason));
        }
        if !(2..=64).contains(&self.linear_conv_kernel_dim) {
            let reason = format!("{} is not from 2 to 64", self.linear_conv_kernel_dim);
            return Err(config_error("linear_conv_kernel_dim", reason));
        }
        if self.attn_output_gate == Some(false) {
            let value = "false".to_owned();
            return Err(LoadError::Unsupported { what: "attn_output_gate", value });
        }
        self.check_layer_types()
    }

    fn check_layer_types(&self) -> Result<(), LoadError> {
        let Some(types) = &self.layer_types else { return Ok(()) };
        check_length("layer_types", types.len(), self.num_hidden_layers)?;
        let differs = |&(layer, of): &(usize, &LayerType)| {
            (*of == LayerType::FullAttention) != self.has_attention(layer)
        };
        match types.iter().enumerate().find(differs) {
            Some((layer, _)) => {
                let reason = format!("layer {layer} is not as full_attention_interval says");
                Err(config_error("layer_types", reason))
            }
            None => Ok(()),
        }
    }
}
