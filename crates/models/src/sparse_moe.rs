//! A router and its experts, of which each token takes a few, and an MLP that all take.
//!
//! Upstream: `MixtralMoE` in `sglang/srt/models/mixtral.py`.

use mlx::{Array, Dtype, Result};
use nn::{Activation, FusedMoe, GatedMlp, Linear, LoadError, MoeDims, Routing, TopK, Weights};

/// Gate, up and down of an expert that is a module by itself.
pub(crate) const PROJ_NAMES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];
/// The same in checkpoints that follow Mixtral's first release.
pub(crate) const W_NAMES: [&str; 3] = ["w1", "w3", "w2"];

pub(crate) struct SparseMoe {
    /// The router.
    gate: Linear,
    experts: FusedMoe,
    shared: Option<GatedMlp>,
}

impl SparseMoe {
    /// Takes `gate` and the experts: `switch_mlp`, stacked, or `experts`, one module each,
    /// in which `names` are gate, up and down.
    pub(crate) fn load(
        w: &Weights,
        names: [&str; 3],
        dims: MoeDims,
        top_k: TopK,
        act: Activation,
    ) -> std::result::Result<Self, LoadError> {
        let places = (&w.at("switch_mlp"), &w.at("experts"));
        let gate = Linear::load(w.at("gate"), dims.hidden, dims.num_experts, false)?;
        Ok(Self::new(gate, FusedMoe::load(places, names, dims, top_k, act)?))
    }

    pub(crate) fn new(gate: Linear, experts: FusedMoe) -> Self {
        Self { gate, experts, shared: None }
    }

    /// With an MLP that every token takes, if the model has one.
    pub(crate) fn with_shared(self, shared: Option<GatedMlp>) -> Self {
        Self { shared, ..self }
    }

    /// Chooses by `routing` in place of softmax and the largest.
    pub(crate) fn with_routing(self, routing: Routing) -> std::result::Result<Self, LoadError> {
        Ok(Self { experts: self.experts.with_routing(routing)?, ..self })
    }

    /// `[num_tokens, hidden]` to the same.
    pub(crate) fn forward(&self, hidden: &Array) -> Result<Array> {
        self.forward_by(hidden, hidden)
    }

    /// The same with logits of the router in f32, whatever the model computes in.
    pub(crate) fn forward_wide(&self, hidden: &Array) -> Result<Array> {
        self.forward_by(&hidden.astype(Dtype::Float32)?, hidden)
    }

    /// `seen` is what the router sees.
    fn forward_by(&self, seen: &Array, hidden: &Array) -> Result<Array> {
        let chosen = self.experts.forward(hidden, &self.gate.forward(seen)?)?;
        match &self.shared {
            Some(shared) => chosen.add(&shared.forward(hidden)?),
            None => Ok(chosen),
        }
    }
}
