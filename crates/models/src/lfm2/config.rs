//! Every field of `config.json` that changes LFM2's graphs, with and without experts. A
//! value that they do not follow fails here, not in the logits.

use nn::{HfConfig, LoadError};
use serde::Deserialize;

use crate::config::{check_heads, check_length, check_sizes, config_error};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Lfm2Config {
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) vocab_size: usize,
    pub(crate) norm_eps: f32,
    pub(crate) conv_bias: bool,
    #[serde(rename = "conv_L_cache")]
    pub(crate) taps: usize,
    block_dim: Option<usize>,
    block_ff_dim: Option<usize>,
    intermediate_size: Option<usize>,
    #[serde(default = "one")]
    block_multiple_of: usize,
    block_ffn_dim_multiplier: Option<f64>,
    #[serde(default)]
    block_auto_adjust_ff_dim: bool,
    full_attn_idxs: Option<Vec<usize>>,
    layer_types: Option<Vec<LayerType>>,
    /// Rules where both are given.
    tie_embedding: Option<bool>,
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    pub(crate) moe: MoeConfig,
}

/// Of models with experts; of no meaning without.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MoeConfig {
    /// Layers before this one have no experts.
    #[serde(default)]
    pub(crate) num_dense_layers: usize,
    #[serde(default)]
    pub(crate) num_experts: usize,
    #[serde(default)]
    pub(crate) num_experts_per_tok: usize,
    #[serde(default)]
    pub(crate) moe_intermediate_size: usize,
    #[serde(default = "yes")]
    pub(crate) norm_topk_prob: bool,
    /// Whether experts have a bias that chooses them.
    #[serde(default = "yes")]
    pub(crate) use_expert_bias: bool,
    #[serde(default = "factor")]
    pub(crate) routed_scaling_factor: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    Conv,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn factor() -> f32 {
    1.0
}

impl MoeConfig {
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("num_experts", self.num_experts),
            ("moe_intermediate_size", self.moe_intermediate_size),
        ])?;
        if !self.routed_scaling_factor.is_finite() {
            return Err(config_error("routed_scaling_factor", "must be finite".to_owned()));
        }
        Ok(())
    }
}

impl Lfm2Config {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let config: Self = hf.parse()?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// Whether the layer has attention; the others have convolutions.
    pub(crate) fn has_attention(&self, layer: usize) -> bool {
        match (&self.full_attn_idxs, &self.layer_types) {
            (Some(layers), _) => layers.contains(&layer),
            (None, Some(types)) => types.get(layer) == Some(&LayerType::FullAttention),
            (None, None) => false,
        }
    }

    /// Layers of the same kind before this one: its place in the pool.
    pub(crate) fn place(&self, layer: usize) -> usize {
        let kind = self.has_attention(layer);
        (0..layer).filter(|&other| self.has_attention(other) == kind).count()
    }

    /// Inner width of the MLP.
    pub(crate) fn inner(&self) -> usize {
        let given = self.block_ff_dim.or(self.intermediate_size).unwrap_or(0);
        if !self.block_auto_adjust_ff_dim {
            return given;
        }
        let inner = 2 * given / 3;
        let inner = match self.block_ffn_dim_multiplier {
            Some(factor) => (factor * inner as f64) as usize,
            None => inner,
        };
        inner.next_multiple_of(self.block_multiple_of.max(1))
    }

    fn check(&self) -> Result<(), LoadError> {
        if self.tie_embedding.or(self.tie_word_embeddings) == Some(false) {
            let value = "false".to_owned();
            return Err(LoadError::Unsupported { what: "tie_word_embeddings", value });
        }
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
            ("block_multiple_of", self.block_multiple_of),
            ("block_ff_dim", self.inner()),
        ])?;
        let heads = [self.num_attention_heads, self.num_key_value_heads];
        check_heads(self.hidden_size, heads, None)?;
        if !(2..=64).contains(&self.taps) {
            let reason = format!("{} is not from 2 to 64", self.taps);
            return Err(config_error("conv_L_cache", reason));
        }
        if let Some(width) = self.block_dim.filter(|&width| width != self.hidden_size) {
            return Err(config_error("block_dim", format!("{width} is not hidden_size")));
        }
        match (&self.full_attn_idxs, &self.layer_types) {
            (None, None) => Err(config_error(
                "layer_types",
                "neither it nor full_attn_idxs is given".to_owned(),
            )),
            (None, Some(types)) => check_length("layer_types", types.len(), self.num_hidden_layers),
            (Some(_), _) => Ok(()),
        }
    }
}
