//! Nemotron-H's MLPs, which have no gates, and the experts made of them.
//!
//! Upstream: `NemotronHMLP` and `NemotronHMoE` in `sglang/srt/models/nemotron_h.py`.

use mlx::{Array, Result};
use nn::{Activation, FusedMoe, Linear, LoadError, Routing, Scoring, Weights};

use super::config::NemotronHConfig;

/// `down(act(up(x)))`.
pub(super) struct Mlp {
    up_proj: Linear,
    down_proj: Linear,
    act: Activation,
}

impl Mlp {
    pub(super) fn load(
        config: &NemotronHConfig,
        inner: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.mlp_bias);
        Ok(Self {
            up_proj: Linear::load(w.at("up_proj"), hidden, inner, bias)?,
            down_proj: Linear::load(w.at("down_proj"), inner, hidden, bias)?,
            act: config.mlp_hidden_act,
        })
    }

    /// `[num_tokens, hidden]` to the same.
    pub(super) fn forward(&self, x: &Array) -> Result<Array> {
        self.down_proj.forward(&self.act.apply(&self.up_proj.forward(x)?)?)
    }
}

pub(super) struct SparseMoeBlock {
    /// The router, `[hidden, num_experts]`, never packed.
    gate: Array,
    experts: FusedMoe,
    /// To the width of the chosen experts, and back.
    latent_proj: Option<[Linear; 2]>,
    shared_experts: Option<Mlp>,
}

impl SparseMoeBlock {
    pub(super) fn load(
        config: &NemotronHConfig,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias, moe) = (config.hidden_size, config.mlp_bias, &config.moe);
        let (dims, gate) = (moe.dims(hidden), w.at("gate"));
        let experts = (&w.at("switch_mlp"), &w.at("experts"));
        let experts = FusedMoe::load_ungated(experts, dims, moe.top_k(), config.mlp_hidden_act)?;
        let routing = Routing {
            scoring: Scoring::Sigmoid,
            groups: moe.groups(),
            bias: Some(gate.take_as_stored("e_score_correction_bias", &[dims.num_experts])?),
            scale: moe.routed_scaling_factor.unwrap_or(1.0),
            expert_scale: None,
        };
        let latent = |width| {
            Ok::<_, LoadError>([
                Linear::load(w.at("fc1_latent_proj"), hidden, width, bias)?,
                Linear::load(w.at("fc2_latent_proj"), width, hidden, bias)?,
            ])
        };
        let shared = |inner| Mlp::load(config, inner, &w.at("shared_experts"));
        Ok(Self {
            gate: gate.take("weight", &[dims.num_experts, hidden])?.transpose(&[1, 0])?,
            experts: experts.with_routing(routing)?,
            latent_proj: moe.moe_latent_size.map(latent).transpose()?,
            shared_experts: moe.shared_inner().map(shared).transpose()?,
        })
    }

    /// `[num_tokens, hidden]` to the same.
    pub(super) fn forward(&self, x: &Array) -> Result<Array> {
        let logits = x.matmul(&self.gate)?;
        let chosen = match &self.latent_proj {
            Some([into, back]) => {
                back.forward(&self.experts.forward(&into.forward(x)?, &logits)?)?
            }
            None => self.experts.forward(x, &logits)?,
        };
        match &self.shared_experts {
            Some(shared) => chosen.add(&shared.forward(x)?),
            None => Ok(chosen),
        }
    }
}
