//! Every field of `config.json` that changes Kimi Linear's graph. A value that it does not
//! follow fails here, not in the logits.

use nn::{Activation, ExpertGroups, GroupScore, HfConfig, LoadError, Scoring, TopK};
use serde::Deserialize;

use super::delta_attention::KdaDims;
use crate::{
    config::{check_sizes, config_error, default_act, is_tied},
    mla::MlaConfig,
};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct KimiConfig {
    #[serde(flatten)]
    pub(crate) mla: MlaConfig,
    pub(crate) num_hidden_layers: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) rms_norm_eps: f32,
    #[serde(default = "default_act")]
    pub(crate) hidden_act: Activation,
    /// Whether latent attention goes without positions, as all published models' does.
    mla_use_nope: Option<bool>,
    linear_attn_config: LinearConfig,
    #[serde(flatten)]
    pub(crate) moe: MoeConfig,
    #[serde(skip)]
    pub(crate) tie_word_embeddings: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct LinearConfig {
    num_heads: usize,
    head_dim: usize,
    #[serde(default = "four")]
    short_conv_kernel_size: usize,
    /// Layers with delta attention, the first is 1.
    kda_layers: Vec<usize>,
    full_attn_layers: Option<Vec<usize>>,
    /// Of a decay that later models have.
    gate_lower_bound: Option<f32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct MoeConfig {
    pub(crate) num_experts: usize,
    pub(crate) moe_intermediate_size: usize,
    num_experts_per_token: usize,
    num_shared_experts: usize,
    moe_router_activation_func: String,
    moe_renormalize: bool,
    pub(crate) routed_scaling_factor: f32,
    first_k_dense_replace: usize,
    moe_layer_freq: usize,
    use_grouped_topk: bool,
    num_expert_group: usize,
    topk_group: usize,
}

impl Default for MoeConfig {
    /// What absent fields mean.
    fn default() -> Self {
        Self {
            num_experts: 0,
            moe_intermediate_size: 0,
            num_experts_per_token: 1,
            num_shared_experts: 0,
            moe_router_activation_func: "sigmoid".to_owned(),
            moe_renormalize: true,
            routed_scaling_factor: 1.0,
            first_k_dense_replace: 0,
            moe_layer_freq: 1,
            use_grouped_topk: true,
            num_expert_group: 1,
            topk_group: 1,
        }
    }
}

fn four() -> usize {
    4
}

impl KimiConfig {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.mla.splits_kv_b = true;
        config.mla.latent_eps = config.rms_norm_eps;
        config.check()?;
        Ok(config)
    }

    /// Whether the layer has delta attention; the others have latent attention.
    pub(crate) fn is_recurrent(&self, layer: usize) -> bool {
        self.linear_attn_config.kda_layers.contains(&(layer + 1))
    }

    /// Layers of one kind or the other, by their place among all.
    pub(crate) fn layers_of(&self, recurrent: bool) -> impl Iterator<Item = usize> {
        (0..self.num_hidden_layers).filter(move |&layer| self.is_recurrent(layer) == recurrent)
    }

    /// Layers of the same kind before this one: its place in the pool.
    pub(crate) fn place(&self, layer: usize) -> usize {
        self.layers_of(self.is_recurrent(layer)).take_while(|&other| other < layer).count()
    }

    pub(crate) fn kda_dims(&self) -> KdaDims {
        KdaDims {
            hidden: self.mla.hidden_size,
            heads: self.linear_attn_config.num_heads,
            head_dim: self.linear_attn_config.head_dim,
            taps: self.linear_attn_config.short_conv_kernel_size,
            eps: self.rms_norm_eps,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[
            ("num_hidden_layers", self.num_hidden_layers),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
        ])?;
        self.mla.check()?;
        if let Some(rank) = self.mla.q_lora_rank {
            return Err(unsupported("q_lora_rank", rank.to_string()));
        }
        if !self.mla.qk_rope_head_dim.is_multiple_of(2) {
            let reason = format!("{} is odd", self.mla.qk_rope_head_dim);
            return Err(config_error("qk_rope_head_dim", reason));
        }
        if self.mla_use_nope == Some(false) {
            return Err(unsupported("mla_use_nope", "false".to_owned()));
        }
        self.moe.check()?;
        self.linear_attn_config.check(self.num_hidden_layers)
    }
}

impl LinearConfig {
    fn check(&self, num_layers: usize) -> Result<(), LoadError> {
        check_sizes(&[
            ("linear_attn_config.num_heads", self.num_heads),
            ("linear_attn_config.head_dim", self.head_dim),
        ])?;
        if !(2..=64).contains(&self.short_conv_kernel_size) {
            let reason = format!("{} is not from 2 to 64", self.short_conv_kernel_size);
            return Err(config_error("linear_attn_config.short_conv_kernel_size", reason));
        }
        if let Some(bound) = self.gate_lower_bound {
            return Err(unsupported("linear_attn_config.gate_lower_bound", bound.to_string()));
        }
        let no_layer = |layer: &&usize| !(1..=num_layers).contains(*layer);
        if let Some(layer) = self.kda_layers.iter().find(no_layer) {
            let reason = format!("{layer} is no layer of {num_layers}");
            return Err(config_error("linear_attn_config.kda_layers", reason));
        }
        let Some(attending) = &self.full_attn_layers else { return Ok(()) };
        let in_one = |layer: &usize| self.kda_layers.contains(layer) != attending.contains(layer);
        match (1..=num_layers).find(|layer| !in_one(layer)) {
            Some(layer) => {
                let reason = format!("layer {layer} is not in just one of it and kda_layers");
                Err(config_error("linear_attn_config.full_attn_layers", reason))
            }
            None => Ok(()),
        }
    }
}

impl MoeConfig {
    fn check(&self) -> Result<(), LoadError> {
        check_sizes(&[("moe_layer_freq", self.moe_layer_freq)])?;
        if self.num_experts == 0 {
            return Ok(());
        }
        check_sizes(&[
            ("num_experts", self.num_experts),
            ("moe_intermediate_size", self.moe_intermediate_size),
        ])?;
        self.scoring()?;
        if !self.use_grouped_topk && self.num_expert_group != 1 {
            let value = format!("false with {} groups", self.num_expert_group);
            return Err(unsupported("use_grouped_topk", value));
        }
        if !self.routed_scaling_factor.is_finite() {
            return Err(config_error("routed_scaling_factor", "must be finite".to_owned()));
        }
        Ok(())
    }

    pub(crate) fn has_experts(&self, layer: usize) -> bool {
        self.num_experts > 0
            && layer >= self.first_k_dense_replace
            && layer.is_multiple_of(self.moe_layer_freq)
    }

    /// Inner width of the experts that every token takes.
    pub(crate) fn shared_inner(&self) -> usize {
        self.num_shared_experts * self.moe_intermediate_size
    }

    /// Inner width of what a token takes together.
    pub(crate) fn widest(&self) -> usize {
        (self.num_experts_per_token * self.moe_intermediate_size).max(self.shared_inner())
    }

    pub(crate) fn top_k(&self) -> TopK {
        let top_k = self.num_experts_per_token;
        TopK { top_k, renormalize: top_k > 1 && self.moe_renormalize }
    }

    pub(crate) fn scoring(&self) -> Result<Scoring, LoadError> {
        Scoring::from_name(&self.moe_router_activation_func)
    }

    pub(crate) fn groups(&self) -> Option<ExpertGroups> {
        let (num_groups, top_groups) = (self.num_expert_group, self.topk_group);
        let groups = ExpertGroups { num_groups, top_groups, score: GroupScore::BestTwo };
        (num_groups != 1).then_some(groups)
    }
}

fn unsupported(what: &'static str, value: String) -> LoadError {
    LoadError::Unsupported { what, value }
}
