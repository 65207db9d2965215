//! The second half of DeepSeek's layers, which GLM shares: after the first layers many
//! small experts, beside some that every token takes.
//!
//! Upstream: `sglang/srt/models/deepseek_v2.py` (`DeepseekV2MoE`).

use mlx::{Array, Result};
use nn::{
    Activation, ExpertGroups, FusedMoe, GatedMlp, GroupScore, LoadError, MoeDims, Routing, Scoring,
    TopK, Weights,
};
use serde::Deserialize;

use crate::config::{check_sizes, config_error, default_act};

/// The fields of config.json that shape it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MoeConfig {
    intermediate_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
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
    routed_scaling_factor: f32,
    topk_method: Option<String>,
    scoring_func: Option<String>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
}

pub(crate) enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SparseMoeBlock>),
}

pub(crate) struct SparseMoeBlock {
    /// The router, `[hidden, num_experts]`, never packed.
    gate: Array,
    experts: FusedMoe,
    shared_experts: Option<GatedMlp>,
}

impl MoeConfig {
    /// Fills in what V3, and the models that follow it, mean by absent fields.
    pub(crate) fn as_v3(&mut self) -> std::result::Result<(), LoadError> {
        self.norm_topk_prob.get_or_insert(true);
        match self.topk_method.get_or_insert_with(|| "noaux_tc".to_owned()).as_str() {
            "noaux_tc" => Ok(()),
            other => {
                let value = other.to_owned();
                Err(LoadError::Unsupported { what: "topk_method", value })
            }
        }
    }

    pub(crate) fn check(&self) -> std::result::Result<(), LoadError> {
        check_sizes(&[
            ("intermediate_size", self.intermediate_size),
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

    /// Inner width of the widest of a step.
    pub(crate) fn widest(&self) -> usize {
        (self.num_experts_per_tok * self.moe_intermediate_size)
            .max(self.shared_width().unwrap_or(0))
            .max(self.intermediate_size)
    }

    fn has_experts(&self, layer_id: usize) -> bool {
        self.n_routed_experts.is_some()
            && layer_id >= self.first_k_dense_replace
            && layer_id.is_multiple_of(self.moe_layer_freq)
    }

    /// Inner width of the experts that every token takes.
    fn shared_width(&self) -> Option<usize> {
        self.n_shared_experts.map(|experts| experts * self.moe_intermediate_size)
    }

    /// Whether experts have a bias that chooses them.
    fn is_biased(&self) -> bool {
        self.topk_method.as_deref() == Some("noaux_tc")
    }

    fn scoring(&self) -> std::result::Result<Scoring, LoadError> {
        let default = if self.is_biased() { "sigmoid" } else { "softmax" };
        Scoring::from_name(self.scoring_func.as_deref().unwrap_or(default))
    }

    /// The groups that a token chooses from, if not from all experts.
    fn groups(&self) -> std::result::Result<Option<ExpertGroups>, LoadError> {
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

    /// The rule by which a token's experts are chosen; `None`: the plain one, which has
    /// kernels.
    fn routing(&self, gate: &Weights) -> std::result::Result<Option<Routing>, LoadError> {
        let bias = || {
            let shape = [self.n_routed_experts.unwrap_or(0)];
            gate.take_as_stored("e_score_correction_bias", &shape)
        };
        let routing = Routing {
            scoring: self.scoring()?,
            groups: self.groups()?,
            bias: self.is_biased().then(bias).transpose()?,
            scale: self.routed_scaling_factor,
            expert_scale: None,
        };
        let is_plain = routing.scoring == Scoring::Softmax
            && routing.groups.is_none()
            && routing.bias.is_none()
            && routing.scale == 1.0;
        Ok((!is_plain).then_some(routing))
    }
}

impl MlpOrExperts {
    /// Takes `mlp` of a layer.
    pub(crate) fn load(
        config: &MoeConfig,
        hidden: usize,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        if config.has_experts(layer_id) {
            return SparseMoeBlock::load(config, hidden, w).map(Box::new).map(Self::Experts);
        }
        let sizes = [hidden, config.intermediate_size];
        GatedMlp::load(w, sizes, config.hidden_act, false).map(Self::Mlp)
    }

    /// `[num_tokens, hidden]` to the same.
    pub(crate) fn forward(&self, hidden: &Array) -> Result<Array> {
        match self {
            Self::Mlp(mlp) => mlp.forward(hidden),
            Self::Experts(block) => block.forward(hidden),
        }
    }
}

impl SparseMoeBlock {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        let chosen = self.experts.forward(hidden, &hidden.matmul(&self.gate)?)?;
        match &self.shared_experts {
            Some(shared) => chosen.add(&shared.forward(hidden)?),
            None => Ok(chosen),
        }
    }

    fn load(
        config: &MoeConfig,
        hidden: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let num_experts = config.n_routed_experts.unwrap_or(0);
        let dims = MoeDims { num_experts, hidden, inner: config.moe_intermediate_size };
        let renormalize = config.norm_topk_prob.unwrap_or(false);
        let gate = w.at("gate");
        let experts = FusedMoe::load(
            (&w.at("switch_mlp"), &w.at("experts")),
            ["gate_proj", "up_proj", "down_proj"],
            dims,
            TopK { top_k: config.num_experts_per_tok, renormalize },
            config.hidden_act,
        )?;
        let shared = |inner| {
            GatedMlp::load(&w.at("shared_experts"), [hidden, inner], config.hidden_act, false)
        };
        Ok(Self {
            gate: gate.take("weight", &[num_experts, hidden])?.transpose(&[1, 0])?,
            experts: match config.routing(&gate)? {
                Some(routing) => experts.with_routing(routing)?,
                None => experts,
            },
            shared_experts: config.shared_width().map(shared).transpose()?,
        })
    }
}

fn one() -> usize {
    1
}

fn factor() -> f32 {
    1.0
}
