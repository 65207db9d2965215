//! The gated MLP of most decoders.
//!
//! Upstream: `LlamaMLP` in `sglang/srt/models/llama.py`.

use mlx::Array;

use crate::{Activation, Linear, LinearWeight, LoadError, MergedLinear, Weights};

/// `down(act(gate(x)) * up(x))`.
pub struct GatedMlp {
    gate_up_proj: GateUp,
    down_proj: Linear,
    act: Activation,
}

enum GateUp {
    Merged(MergedLinear),
    /// One matrix in the checkpoint already.
    Stored(Linear),
}

impl GatedMlp {
    /// Takes `gate_proj`, `up_proj` and `down_proj` of an MLP `[hidden, inner]` wide,
    /// with biases if the model has them.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(
        w: &Weights,
        [hidden, inner]: [usize; 2],
        act: Activation,
        bias: bool,
    ) -> Result<Self, LoadError> {
        Self::load_named(w, ["gate_proj", "up_proj", "down_proj"], [hidden, inner], act, bias)
    }

    /// The same with other names: gate, up, down.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load_named(
        w: &Weights,
        [gate, up, down]: [&str; 3],
        [hidden, inner]: [usize; 2],
        act: Activation,
        bias: bool,
    ) -> Result<Self, LoadError> {
        Self::load_at([w.at(gate), w.at(up), w.at(down)], [hidden, inner], act, bias)
    }

    /// The same from anywhere: gate, up, down.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load_at(
        [gate, up, down]: [Weights; 3],
        [hidden, inner]: [usize; 2],
        act: Activation,
        bias: bool,
    ) -> Result<Self, LoadError> {
        let gate_up = [(gate, inner), (up, inner)];
        Ok(Self {
            gate_up_proj: GateUp::Merged(MergedLinear::load(&gate_up, hidden, bias)?),
            down_proj: Linear::load(down, inner, hidden, bias)?,
            act,
        })
    }

    /// Takes two matrices: gates then values, most often `gate_up_proj`, and `down_proj`.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load_fused(
        w: &Weights,
        [gate_up, down]: [&str; 2],
        [hidden, inner]: [usize; 2],
        act: Activation,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            gate_up_proj: GateUp::Stored(Linear::load(w.at(gate_up), hidden, 2 * inner, false)?),
            down_proj: Linear::load(w.at(down), inner, hidden, false)?,
            act,
        })
    }

    /// Of gate, up and down.
    ///
    /// # Errors
    /// MLX has no room for it.
    pub fn from_weights(
        [gate, up, down]: [LinearWeight; 3],
        act: Activation,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            gate_up_proj: GateUp::Merged(MergedLinear::from_weights(vec![gate, up], Vec::new())?),
            down_proj: Linear::from_weight(down)?,
            act,
        })
    }

    /// `[num_tokens, hidden]` to the same.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array) -> mlx::Result<Array> {
        let gate_up = match &self.gate_up_proj {
            GateUp::Merged(merged) => merged.forward(x)?,
            GateUp::Stored(stored) => stored.forward(x)?,
        };
        self.down_proj.forward(&self.act.and_mul(&gate_up)?)
    }
}
