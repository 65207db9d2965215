//! The inputs that each layer has for itself: a part of a second embedding, and of a
//! projection of the first.

use mlx::{Array, Result};
use nn::{Activation, Embedding, Linear, LoadError, RmsNorm, Weights};

use super::Gemma4Config;

/// What makes the inputs of all layers: a second embedding, and a projection of the first.
pub(super) struct LayerInputs {
    /// Of one layer.
    width: usize,
    embed_tokens_per_layer: Embedding,
    per_layer_model_projection: Linear,
    /// Factor on the projection.
    scale: f32,
    per_layer_projection_norm: RmsNorm,
}

/// What a layer does with the input of its own.
pub(super) struct LayerInput {
    act: Activation,
    per_layer_input_gate: Linear,
    per_layer_projection: Linear,
    post_per_layer_input_norm: RmsNorm,
}

impl LayerInputs {
    /// `[num_tokens, width]` for each layer; `hidden` is what the first one gets.
    pub(super) fn forward(&self, ids: &Array, hidden: &Array) -> Result<Vec<Array>> {
        let embedded = self.embed_tokens_per_layer.forward(ids)?;
        let embedded = embedded.mul_scalar((self.width as f32).sqrt())?;
        let projected = self.per_layer_model_projection.forward(hidden)?.mul_scalar(self.scale)?;
        let (rows, all) = (projected.dim(0), projected.dim(1));
        let projected = projected.reshape(&[rows * all / self.width, self.width])?;
        let projected = self.per_layer_projection_norm.forward(&projected)?;
        let both = projected.reshape(&[rows, all])?.add(&embedded)?;
        both.mul_scalar(0.5_f32.sqrt())?.split(all / self.width, 1)
    }
}

impl LayerInputs {
    pub(super) fn load(config: &Gemma4Config, w: &Weights) -> std::result::Result<Self, LoadError> {
        let (hidden, width) = (config.hidden_size, config.per_layer_width());
        let (rows, all) = (config.vocab_size_per_layer_input, config.num_hidden_layers * width);
        let norm = w.at("per_layer_projection_norm");
        let projection = w.at("per_layer_model_projection");
        Ok(Self {
            width,
            embed_tokens_per_layer: Embedding::load(
                w.at("embed_tokens_per_layer"),
                rows,
                all,
                false,
            )?,
            per_layer_model_projection: Linear::load(projection, hidden, all, false)?,
            scale: (hidden as f32).sqrt().recip(),
            per_layer_projection_norm: RmsNorm::load(norm, width, config.rms_norm_eps)?,
        })
    }
}

impl LayerInput {
    pub(super) fn load(config: &Gemma4Config, w: &Weights) -> std::result::Result<Self, LoadError> {
        let (hidden, width) = (config.hidden_size, config.per_layer_width());
        let norm = w.at("post_per_layer_input_norm");
        Ok(Self {
            act: config.hidden_activation,
            per_layer_input_gate: Linear::load(w.at("per_layer_input_gate"), hidden, width, false)?,
            per_layer_projection: Linear::load(w.at("per_layer_projection"), width, hidden, false)?,
            post_per_layer_input_norm: RmsNorm::load(norm, hidden, config.rms_norm_eps)?,
        })
    }

    /// Adds what a layer makes of its own `input` to `hidden`.
    pub(super) fn forward(&self, hidden: &Array, input: &Array) -> Result<Array> {
        let gate = self.act.apply(&self.per_layer_input_gate.forward(hidden)?)?;
        let added = self.per_layer_projection.forward(&gate.multiply(input)?)?;
        hidden.add(&self.post_per_layer_input_norm.forward(&added)?)
    }
}
