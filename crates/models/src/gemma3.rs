//! Gemma 3 with eyes, of which the language model is loaded.
//!
//! Upstream: `sglang/srt/models/gemma3_mm.py`.

use nn::{HfConfig, LeftOver, LoadError, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over, pack_all},
    gemma3_text::{Gemma3Config, Gemma3ForCausalLm},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Gemma3ForConditionalGeneration"],
    model_types: &["gemma3"],
    models: "Gemma 3 4B, 12B and 27B: their text side",
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
    let mut config = Gemma3Config::new(&text)?;
    if let Some(vocab) = hf.raw().get("vocab_size").and_then(serde_json::Value::as_u64) {
        config.vocab_size = vocab as usize;
    }
    // As transformers writes it now, and as it did and mlx-lm does.
    let (model, head) = match w.at("model.language_model").is_empty() {
        true => (w.at("language_model.model"), w.at("language_model.lm_head")),
        false => (w.at("model.language_model"), w.at("lm_head")),
    };
    Ok(Box::new(Gemma3ForCausalLm::load(config, &text, &model, head)?))
}
