//! Kimi Linear's experts: chosen and weighed as DeepSeek-V3's, under other names.
//!
//! Upstream: `KimiMoE` in `sglang/srt/models/kimi_linear.py`.

use mlx::{Array, Result};
use nn::{FusedMoe, GatedMlp, Linear, LoadError, MoeDims, Routing, Weights};

use super::config::KimiConfig;

pub(super) enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SparseMoeBlock>),
}

pub(super) struct SparseMoeBlock {
    /// The router.
    gate: Linear,
    experts: FusedMoe,
    shared_experts: Option<GatedMlp>,
}

impl MlpOrExperts {
    /// Takes the second half of a layer.
    pub(super) fn load(
        config: &KimiConfig,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        if config.moe.has_experts(layer) {
            return SparseMoeBlock::load(config, w).map(Box::new).map(Self::Experts);
        }
        let sizes = [config.mla.hidden_size, config.intermediate_size];
        GatedMlp::load(&w.at("mlp"), sizes, config.hidden_act, false).map(Self::Mlp)
    }

    /// `[num_tokens, hidden]` to the same.
    pub(super) fn forward(&self, hidden: &Array) -> Result<Array> {
        match self {
            Self::Mlp(mlp) => mlp.forward(hidden),
            Self::Experts(block) => block.forward(hidden),
        }
    }
}

impl SparseMoeBlock {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        let chosen = self.experts.forward(hidden, &self.gate.forward(hidden)?)?;
        match &self.shared_experts {
            Some(shared) => chosen.add(&shared.forward(hidden)?),
            None => Ok(chosen),
        }
    }

    fn load(config: &KimiConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let (hidden, act, moe) = (config.mla.hidden_size, config.hidden_act, &config.moe);
        let (mlp, published) = (w.at("mlp"), w.at("block_sparse_moe"));
        let (at, names, biased) = match published.is_empty() {
            true => (mlp.clone(), ["gate_proj", "up_proj", "down_proj"], mlp.clone()),
            false => {
                let biased = published.at("gate").told_as(&mlp);
                (published.told_as(&mlp), ["w1", "w3", "w2"], biased)
            }
        };
        let num_experts = moe.num_experts;
        let dims = MoeDims { num_experts, hidden, inner: moe.moe_intermediate_size };
        let places = (&mlp.at("switch_mlp"), &at.at("experts"));
        let experts = FusedMoe::load(places, names, dims, moe.top_k(), act)?;
        let routing = Routing {
            scoring: moe.scoring()?,
            groups: moe.groups(),
            bias: Some(biased.take_as_stored("e_score_correction_bias", &[num_experts])?),
            scale: moe.routed_scaling_factor,
            expert_scale: None,
        };
        let shared = |inner| GatedMlp::load(&at.at("shared_experts"), [hidden, inner], act, false);
        let shared_inner = Some(moe.shared_inner()).filter(|&inner| inner > 0);
        Ok(Self {
            gate: Linear::load(at.at("gate"), hidden, num_experts, false)?,
            experts: experts.with_routing(routing)?,
            shared_experts: shared_inner.map(shared).transpose()?,
        })
    }
}
