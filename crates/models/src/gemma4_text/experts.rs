//! Gemma 4's experts, which run beside the MLP of their layer.

use mlx::{Array, Result};
use nn::{FusedMoe, Linear, LoadError, MoeDims, RmsNorm, Routing, Scoring, TopK, Weights};

use super::{Gemma4Config, config::MoeSizes};

pub(super) struct Gemma4Moe {
    /// Of the router's input.
    router_norm: RmsNorm,
    router_proj: Linear,
    experts: FusedMoe,
    pre_feedforward_layernorm_2: RmsNorm,
    post_feedforward_layernorm_1: RmsNorm,
    post_feedforward_layernorm_2: RmsNorm,
}

impl Gemma4Moe {
    /// From the tensors of a layer.
    pub(super) fn load(
        config: &Gemma4Config,
        sizes: MoeSizes,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let MoeSizes { num_experts, top_k, inner } = sizes;
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let norm = |name: &str| RmsNorm::load(w.at(name), hidden, eps);
        let (router, experts) = (w.at("router"), w.at("experts"));
        let scale = router.take("scale", &[hidden])?;
        let scale = scale.mul_scalar((hidden as f32).sqrt().recip())?;
        scale.eval()?;
        let moe = FusedMoe::load(
            (&experts.at("switch_glu"), &experts),
            ["gate_proj", "up_proj", "down_proj"],
            MoeDims { num_experts, hidden, inner },
            TopK { top_k, renormalize: true },
            config.hidden_activation,
        )?;
        let routing = Routing {
            scoring: Scoring::Softmax,
            groups: None,
            bias: None,
            scale: 1.0,
            expert_scale: Some(router.take("per_expert_scale", &[num_experts])?),
        };
        Ok(Self {
            router_norm: RmsNorm::with_weight(scale, eps),
            router_proj: Linear::load(router.at("proj"), hidden, num_experts, false)?,
            experts: moe.with_routing(routing)?,
            pre_feedforward_layernorm_2: norm("pre_feedforward_layernorm_2")?,
            post_feedforward_layernorm_1: norm("post_feedforward_layernorm_1")?,
            post_feedforward_layernorm_2: norm("post_feedforward_layernorm_2")?,
        })
    }

    /// What experts make of `hidden` and the MLP made of it, `mlp`, together.
    pub(super) fn forward(&self, hidden: &Array, mlp: &Array) -> Result<Array> {
        let logits = self.router_proj.forward(&self.router_norm.forward(hidden)?)?;
        let normed = self.pre_feedforward_layernorm_2.forward(hidden)?;
        let chosen =
            self.post_feedforward_layernorm_2.forward(&self.experts.forward(&normed, &logits)?)?;
        self.post_feedforward_layernorm_1.forward(mlp)?.add(&chosen)
    }
}
