//! Every field of `config.json` that changes Llama 4's graph. A value that it does not
//! follow fails here, not in the logits.
//!
//! Upstream: `Llama4TextConfig` of transformers, whose defaults these are.

use attention::AttentionShape;
use nn::{Activation, HfConfig, LoadError, RopeConfig};
use serde::Deserialize;

use crate::config::{check_heads, check_length, check_sizes, config_error, default_act, is_tied};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Llama4Config {
    pub(super) hidden_size: usize,
    /// Inside an expert.
    pub(super) intermediate_size: usize,
    /// Inside the MLP of a layer without experts.
    pub(super) intermediate_size_mlp: usize,
    pub(super) num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    pub(super) vocab_size: usize,
    #[serde(default = "default_act")]
    pub(super) hidden_act: Activation,
    pub(super) rms_norm_eps: f32,
    #[serde(default)]
    pub(super) attention_bias: bool,
    #[serde(default = "yes")]
    use_qk_norm: bool,
    /// 0 where a layer has no positions. Empty as if absent.
    no_rope_layers: Option<Vec<u8>>,
    /// Otherwise every so many layers have none.
    #[serde(default = "four")]
    no_rope_layer_interval: usize,
    #[serde(default = "chunk")]
    attention_chunk_size: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    #[serde(default = "on")]
    attn_temperature_tuning: Option<Switch>,
    #[serde(default = "floor")]
    floor_scale: f64,
    #[serde(default = "attn_scale")]
    attn_scale: f32,
    /// Layers with experts.
    moe_layers: Option<Vec<usize>>,
    /// Otherwise every so many layers have them.
    #[serde(default = "one")]
    interleave_moe_layer_step: usize,
    #[serde(default)]
    pub(super) num_local_experts: usize,
    #[serde(default)]
    num_experts_per_tok: usize,
    #[serde(skip)]
    pub(super) tie_word_embeddings: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    ChunkedAttention,
}

/// The first configs have a number where later ones say true.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Switch {
    Bool(bool),
    Number(f64),
}

/// How queries without positions grow: attention stays sharp in long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Temperature {
    /// Tokens from one step of growth to the next.
    pub(super) floor_scale: usize,
    pub(super) attn_scale: f32,
}

impl Llama4Config {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let config = Self { tie_word_embeddings: is_tied(hf)?, ..hf.parse()? };
        config.check()?;
        config.check_layers()?;
        Ok(config)
    }

    /// Pairs are neighbours.
    pub(super) fn rope(&self, hf: &HfConfig) -> Result<RopeConfig, LoadError> {
        let rope = RopeConfig { traditional: true, ..RopeConfig::from_config(hf)? };
        // Heads are normed as they rotate, which leaves no factor.
        if self.use_qk_norm && rope.scaling.mscale() != 1.0 {
            let value = "a rope that scales".to_owned();
            return Err(LoadError::Unsupported { what: "use_qk_norm", value });
        }
        Ok(rope)
    }

    pub(super) fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    pub(super) fn has_positions(&self, layer: usize) -> bool {
        match self.no_rope_layers.as_deref() {
            None | Some([]) => !(layer + 1).is_multiple_of(self.no_rope_layer_interval),
            Some(layers) => layers.get(layer) != Some(&0),
        }
    }

    pub(super) fn norms_heads(&self, layer: usize) -> bool {
        self.use_qk_norm && self.has_positions(layer)
    }

    pub(super) fn has_experts(&self, layer: usize) -> bool {
        match (&self.moe_layers, self.interleave_moe_layer_step) {
            (Some(layers), _) => layers.contains(&layer),
            (None, 0) => false,
            (None, step) => (layer + 1).is_multiple_of(step),
        }
    }

    pub(super) fn temperature(&self) -> Option<Temperature> {
        let is_on = match self.attn_temperature_tuning {
            None | Some(Switch::Bool(false)) => false,
            Some(Switch::Bool(true)) => true,
            Some(Switch::Number(number)) => number != 0.0,
        };
        let (floor_scale, attn_scale) = (self.floor_scale as usize, self.attn_scale);
        is_on.then_some(Temperature { floor_scale, attn_scale })
    }

    pub(super) fn attention_shape(&self, layer: usize) -> AttentionShape {
        AttentionShape {
            layer_id: layer,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            attention_chunk: self.attention_chunk_size.filter(|_| self.has_chunks(layer)),
            ..AttentionShape::default()
        }
    }

    fn has_chunks(&self, layer: usize) -> bool {
        match &self.layer_types {
            Some(types) => types.get(layer) == Some(&LayerType::ChunkedAttention),
            None => self.has_positions(layer),
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("intermediate_size_mlp", self.intermediate_size_mlp),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
            ("no_rope_layer_interval", self.no_rope_layer_interval),
            ("attention_chunk_size", self.attention_chunk_size.unwrap_or(1)),
        ])?;
        let heads = [self.num_attention_heads, self.num_key_value_heads];
        check_heads(self.hidden_size, heads, self.head_dim)?;
        if self.floor_scale < 1.0 || self.floor_scale.fract() != 0.0 {
            let reason = format!("{} is not a number of tokens", self.floor_scale);
            return Err(config_error("floor_scale", reason));
        }
        check_sizes(&[("floor_scale", self.floor_scale as usize)])
    }

    fn check_layers(&self) -> Result<(), LoadError> {
        let num_layers = self.num_hidden_layers;
        // A smaller model may have the list of a larger one.
        if let Some(layers) = self.no_rope_layers.as_ref().filter(|layers| !layers.is_empty())
            && layers.len() < num_layers
        {
            check_length("no_rope_layers", layers.len(), num_layers)?;
        }
        if let Some(types) = &self.layer_types {
            check_length("layer_types", types.len(), num_layers)?;
            if self.attention_chunk_size.is_none() && types.contains(&LayerType::ChunkedAttention) {
                let reason = "missing, and layer_types has chunked_attention".to_owned();
                return Err(config_error("attention_chunk_size", reason));
            }
        }
        if (0..num_layers).any(|layer| self.has_experts(layer)) {
            check_sizes(&[("num_local_experts", self.num_local_experts)])?;
            if self.num_experts_per_tok != 1 {
                let value = self.num_experts_per_tok.to_string();
                return Err(LoadError::Unsupported { what: "num_experts_per_tok", value });
            }
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn four() -> usize {
    4
}

fn chunk() -> Option<usize> {
    Some(8192)
}

fn on() -> Option<Switch> {
    Some(Switch::Bool(true))
}

fn floor() -> f64 {
    8192.0
}

fn attn_scale() -> f32 {
    0.1
}
