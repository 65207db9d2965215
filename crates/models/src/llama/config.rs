//! Every field of `config.json` that changes Llama's graph. A value that the
//! graph does not follow fails here, not in the logits.

use nn::{Activation, HfConfig, LoadError};
use serde::Deserialize;

use crate::config::{
    LayerType, check_kv_heads, check_length, check_sizes, config_error, default_act, is_tied,
};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LlamaConfig {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    num_key_value_heads: Option<usize>, // absent before GQA
    head_dim: Option<usize>,
    pub(crate) vocab_size: usize,
    #[serde(default = "default_act")]
    pub(crate) hidden_act: Activation,
    pub(crate) rms_norm_eps: f32,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    attention_out_bias: Option<bool>, // Seed-OSS
    #[serde(default)]
    pub(crate) mlp_bias: bool,
    #[serde(skip)]
    pub(crate) tie_word_embeddings: bool,
    sliding_window: Option<usize>, // Mistral
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<LayerType>>,
    pretraining_tp: Option<usize>,
}

impl LlamaConfig {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.check()?;
        if config.sliding_window.is_some() && config.layer_types.is_none() && !slides(hf) {
            config.sliding_window = None;
        }
        Ok(config)
    }

    pub(crate) fn num_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// Whether the projection after attention has a bias.
    pub(crate) fn out_bias(&self) -> bool {
        self.attention_out_bias.unwrap_or(self.attention_bias)
    }

    /// Tokens that a layer looks back, itself included; `None`: all.
    pub(crate) fn window(&self, layer_id: usize) -> Option<usize> {
        let slides = match &self.layer_types {
            Some(types) => types[layer_id] == LayerType::SlidingAttention,
            None => self.use_sliding_window != Some(false),
        };
        self.sliding_window.filter(|_| slides)
    }

    fn check(&self) -> Result<(), LoadError> {
        let positive = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_kv_heads()),
            ("vocab_size", self.vocab_size),
        ];
        check_sizes(&positive)?;
        if self.head_dim() == 0 {
            return Err(config_error("head_dim", "must be positive".to_owned()));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let reason = format!("{} does not divide hidden_size", self.num_attention_heads);
            return Err(config_error("num_attention_heads", reason));
        }
        check_kv_heads(self.num_attention_heads, self.num_kv_heads())?;
        if let Some(tp) = self.pretraining_tp.filter(|&tp| tp > 1) {
            return Err(LoadError::Unsupported { what: "pretraining_tp", value: tp.to_string() });
        }
        if self.sliding_window == Some(0) {
            return Err(config_error("sliding_window", "must be positive or null".to_owned()));
        }
        match &self.layer_types {
            Some(types) if types.len() != self.num_hidden_layers => {
                check_length("layer_types", types.len(), self.num_hidden_layers)
            }
            Some(types)
                if types.contains(&LayerType::SlidingAttention)
                    && self.sliding_window.is_none() =>
            {
                Err(config_error("sliding_window", "missing, but layer_types slides".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// Llama's graph has no window: only Mistral's reads `sliding_window` without
/// `layer_types`.
fn slides(hf: &HfConfig) -> bool {
    hf.model_type() == Some("mistral")
        || hf.architectures().iter().any(|name| name == "MistralForCausalLM")
}
