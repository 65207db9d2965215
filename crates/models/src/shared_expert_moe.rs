//! Experts, and one more that takes every token as far as its gate lets it: Qwen2's with
//! experts, Qwen3-Next's, Qwen3.5's.
//!
//! Upstream: `Qwen2MoeSparseMoeBlock` in `sglang/srt/models/qwen2_moe.py`.

use mlx::{Array, Result};
use nn::{Activation, FusedMoe, GatedMlp, Linear, LoadError, MoeDims, TopK, Weights, add_gated};

pub(crate) struct SharedExpertMoe {
    /// The router.
    gate: Linear,
    experts: FusedMoe,
    shared_expert: GatedMlp,
    /// How much of the shared expert each token takes.
    shared_expert_gate: Linear,
}

impl SharedExpertMoe {
    /// `shared_inner` is the width inside the shared expert.
    pub(crate) fn load(
        w: &Weights,
        dims: MoeDims,
        shared_inner: usize,
        top_k: TopK,
        act: Activation,
    ) -> std::result::Result<Self, LoadError> {
        let MoeDims { num_experts, hidden, .. } = dims;
        let stacked_or_single = (&w.at("switch_mlp"), &w.at("experts"));
        let names = ["gate_proj", "up_proj", "down_proj"];
        let shared = [hidden, shared_inner];
        Ok(Self {
            gate: Linear::load(w.at("gate"), hidden, num_experts, false)?,
            experts: FusedMoe::load(stacked_or_single, names, dims, top_k, act)?,
            shared_expert: GatedMlp::load(&w.at("shared_expert"), shared, act, false)?,
            shared_expert_gate: Linear::load(w.at("shared_expert_gate"), hidden, 1, false)?,
        })
    }

    /// `[num_tokens, hidden]` to the same.
    pub(crate) fn forward(&self, hidden: &Array) -> Result<Array> {
        let chosen = self.experts.forward(hidden, &self.gate.forward(hidden)?)?;
        let gates = self.shared_expert_gate.forward(hidden)?;
        add_gated(&chosen, &self.shared_expert.forward(hidden)?, &gates)
    }
}
