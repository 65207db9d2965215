//! Every field of `config.json` that changes DeepSeek's graphs. A value that they do not
//! follow fails here, not in the logits.

use nn::{
    Activation, ExpertGroups, GroupScore, HfConfig, LoadError, MoeDims, RopeConfig, Scoring, TopK,
};
use serde::Deserialize;

use crate::{
    config::{check_sizes, config_error, default_act, is_tied},
    mla::MlaConfig,
};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeepseekConfig {
    #[serde(flatten)]
    pub(crate) mla: MlaConfig,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) vocab_size: usize,
    #[serde(default = "default_act")]
    pub(crate) hidden_act: Activation,
    pub(crate) rms_norm_eps: f32,
    /// Absent: no layer has experts.
    n_routed_experts: Option<usize>,
    n_shared_experts: Option<usize>,
    #[serde(default)]
    moe_intermediate_size: usize,
    #[serde(default)]
    num_experts_per_tok: usize,
    /// Layers before this one have no experts.
    #[serde(default)]
    first_k_dense_replace: usize,
    /// Every so many layers have experts.
    #[serde(default = "one")]
    moe_layer_freq: usize,
    norm_topk_prob: Option<bool>,
    #[serde(default = "factor")]
    pub(crate) routed_scaling_factor: f32,
    topk_method: Option<String>,
    scoring_func: Option<String>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
    #[serde(skip)]
    pub(crate) tie_word_embeddings: bool,
}

impl DeepseekConfig {
    pub(crate) fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.check()?;
        Ok(config)
    }

    /// As its successor and the models that follow that have it.
    pub(crate) fn v3(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.mla.splits_kv_b = true;
        config.norm_topk_prob.get_or_insert(true);
        if config.topk_method.get_or_insert_with(|| "noaux_tc".to_owned()) != "noaux_tc" {
            let value = config.topk_method.unwrap_or_default();
            return Err(LoadError::Unsupported { what: "topk_method", value });
        }
        config.check()?;
        Ok(config)
    }

    /// Pairs that rotate are neighbours.
    pub(crate) fn rope(hf: &HfConfig) -> Result<RopeConfig, LoadError> {
        Ok(RopeConfig { traditional: true, ..RopeConfig::from_config(hf)? })
    }

    pub(crate) fn has_experts(&self, layer_id: usize) -> bool {
        self.n_routed_experts.is_some()
            && layer_id >= self.first_k_dense_replace
            && layer_id.is_multiple_of(self.moe_layer_freq)
    }

    pub(crate) fn moe_dims(&self) -> MoeDims {
        MoeDims {
            num_experts: self.n_routed_experts.unwrap_or(0),
            hidden: self.mla.hidden_size,
            inner: self.moe_intermediate_size,
        }
    }

    pub(crate) fn top_k(&self) -> TopK {
        TopK { top_k: self.num_experts_per_tok, renormalize: self.norm_topk_prob.unwrap_or(false) }
    }

    /// Inner width of the experts that every token takes.
    pub(crate) fn shared_width(&self) -> Option<usize> {
        self.n_shared_experts.map(|experts| experts * self.moe_intermediate_size)
    }

    /// What a step holds at its widest.
    pub(crate) fn widest(&self) -> usize {
        (self.num_experts_per_tok * self.moe_intermediate_size)
            .max(self.intermediate_size)
            .max(self.mla.absorbed_width())
    }

    /// What experts are scored by.
    pub(crate) fn scoring(&self) -> Result<Scoring, LoadError> {
        let default = if self.is_biased() { "sigmoid" } else { "softmax" };
        Scoring::from_name(self.scoring_func.as_deref().unwrap_or(default))
    }

    /// Whether experts have a bias that chooses them (`noaux_tc`).
    pub(crate) fn is_biased(&self) -> bool {
        self.topk_method.as_deref() == Some("noaux_tc")
    }

    /// The groups that a token chooses from, if not from all experts.
    pub(crate) fn groups(&self) -> Result<Option<ExpertGroups>, LoadError> {
        let score = match self.topk_method.as_deref() {
            // "gready" is the default of the models' own code.
            None | Some("greedy" | "gready") => return Ok(None),
            Some("group_limited_greedy") => GroupScore::Best,
            Some("noaux_tc") => GroupScore::BestTwo,
            Some(other) => {
                let value = other.to_owned();
                return Err(LoadError::Unsupported { what: "topk_method", value });
            }
        };
        let (num_groups, top_groups) = (self.n_group.unwrap_or(1), self.topk_group.unwrap_or(1));
        Ok((num_groups != 1).then_some(ExpertGroups { num_groups, top_groups, score }))
    }

    fn check(&self) -> Result<(), LoadError> {
        self.mla.check()?;
        check_sizes(&[
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
            ("moe_layer_freq", self.moe_layer_freq),
            ("n_routed_experts", self.n_routed_experts.unwrap_or(1)),
            ("n_shared_experts", self.n_shared_experts.unwrap_or(1)),
        ])?;
        if self.n_routed_experts.is_some() {
            check_sizes(&[("moe_intermediate_size", self.moe_intermediate_size)])?;
            self.scoring()?;
            self.groups()?;
        }
        if !self.routed_scaling_factor.is_finite() {
            return Err(config_error("routed_scaling_factor", "must be finite".to_owned()));
        }
        Ok(())
    }
}

fn one() -> usize {
    1
}

fn factor() -> f32 {
    1.0
}
