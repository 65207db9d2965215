//! Mistral Small 3.1 and later, Devstral, Ministral 3: a language model with eyes, of
//! which the language model is loaded.
//!
//! Upstream: `mlx_lm/models/mistral3.py`.

use nn::{HfConfig, LeftOver, LoadError, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over, pack_all},
    llama::LlamaForCausalLm,
    ministral3::Ministral3ForCausalLm,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Mistral3ForConditionalGeneration"],
    model_types: &["mistral3"],
    models: "Mistral Small 3.1 and later, Devstral, Ministral 3: their text side",
    left_over: |hf| {
        let eyes = ["vision_tower", "multi_modal_projector"];
        let moved = ["model.vision_tower", "model.multi_modal_projector"];
        let modules = eyes.into_iter().chain(moved).map(LeftOver::Module);
        left_over(hf).into_iter().chain(modules).collect()
    },
    quant: pack_all,
    load,
};

fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let text = hf.text()?;
    // As transformers writes it now, and as it did and mlx-lm does.
    let (model, head) = match w.at("model.language_model").is_empty() {
        true => (w.at("language_model.model"), w.at("language_model.lm_head")),
        false => (w.at("model.language_model"), w.at("lm_head")),
    };
    match text.model_type() {
        Some("ministral3") => Ok(Box::new(Ministral3ForCausalLm::load(&text, model, head)?)),
        None | Some("mistral" | "llama") => {
            Ok(Box::new(LlamaForCausalLm::load(&text, model, head)?))
        }
        Some(other) => {
            let value = other.to_owned();
            Err(LoadError::Unsupported { what: "text_config.model_type", value })
        }
    }
}
