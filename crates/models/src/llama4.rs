//! Llama 4 with eyes, of which the language model is loaded.
//!
//! Upstream: `sglang/srt/models/mllama4.py`.

use nn::{HfConfig, LeftOver, LoadError, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over, pack_all, text_side},
    llama4_text::Llama4ForCausalLm,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Llama4ForConditionalGeneration"],
    model_types: &["llama4"],
    models: "Llama 4 Scout and Maverick: their text side",
    left_over: left_over_eyes,
    quant: pack_all,
    load,
};

fn left_over_eyes(hf: &HfConfig) -> Vec<LeftOver<'static>> {
    let eyes = ["vision_model", "multi_modal_projector"];
    left_over(hf).into_iter().chain(eyes.map(LeftOver::Module)).collect()
}

fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let (model, head) = text_side(w);
    Ok(Box::new(Llama4ForCausalLm::load(&hf.text()?, &model, head)?))
}
