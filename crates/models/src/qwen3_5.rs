//! Qwen3.5 and Qwen3.6, dense and with experts: Qwen3-Next's layers with projections that
//! stand apart. Published with eyes, of which the language model is loaded.
//!
//! Upstream: `sglang/srt/models/qwen3_5.py`.

use nn::{HfConfig, LeftOver, LoadError, RopeConfig, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::{self, text_side},
    gated_delta_net::Layout,
    qwen3_next::{Form, HybridConfig, HybridForCausalLm, pack_routers},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"],
    model_types: &["qwen3_5", "qwen3_5_text"],
    models: "Qwen3.5 and Qwen3.6, dense: their text side",
    left_over: left_over_eyes,
    quant: pack_routers,
    load,
};

/// How much of a head rotates, and by what, where config.json does not say.
const PARTIAL_ROTARY_FACTOR: f32 = 0.25;
const ROPE_THETA: f32 = 100_000.0;

/// Eyes, and what predicts further tokens at once.
pub(crate) fn left_over_eyes(hf: &HfConfig) -> Vec<LeftOver<'static>> {
    let further = ["mtp", "model.mtp", "language_model.mtp", "model.language_model.mtp"];
    config::left_over_eyes(hf).into_iter().chain(further.map(LeftOver::Module)).collect()
}

pub(crate) fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let text = hf.text()?;
    let config = HybridConfig::new(&text)?;
    let (model, head) = text_side(w);
    let recurrent = (0..config.num_hidden_layers).find(|&layer| !config.has_attention(layer));
    // As published: convolutions in another order, norms as what is added to one.
    let conv = recurrent.and_then(|layer| {
        model.at("layers").layer(layer).at("linear_attn.conv1d").stored_shape("weight")
    });
    let norms_above_one = conv.is_some_and(|shape| shape.last() != Some(&1));
    let form = Form { layout: Layout::Apart, norms_above_one, renormalize: true };
    let rope = rope(&text)?;
    Ok(Box::new(HybridForCausalLm::load(config, form, (&rope, hf.context_length()), &model, head)?))
}

fn rope(text: &HfConfig) -> Result<RopeConfig, LoadError> {
    let mut rope = RopeConfig::partial_from_config(text)?;
    let has = |field: &str| {
        let nested = text.get("rope_parameters").or_else(|| text.get("rope_scaling"));
        text.get(field).is_some() || nested.is_some_and(|nested| nested.get(field).is_some())
    };
    if !has("partial_rotary_factor") {
        rope.partial_rotary_factor = PARTIAL_ROTARY_FACTOR;
    }
    if !has("rope_theta") {
        rope.theta = ROPE_THETA;
    }
    Ok(rope)
}
