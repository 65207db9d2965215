//! Gemma 4 with eyes and ears, of which the language model is loaded.
//!
//! Upstream: `mlx_lm/models/gemma4.py`.

use nn::{HfConfig, LeftOver, LoadError, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::text_side,
    gemma4_text::{Gemma4Config, Gemma4ForCausalLm, left_over_text, quant},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"],
    model_types: &["gemma4", "gemma4_unified"],
    models: "Gemma 4 E2B, E4B, 12B, 26B-A4B and 31B: their text side",
    left_over: left_over_senses,
    quant,
    load,
};

/// Eyes and ears, and the bounds of what passes through them.
fn left_over_senses(hf: &HfConfig) -> Vec<LeftOver<'static>> {
    let senses = [
        "vision_tower",
        "multi_modal_projector",
        "audio_tower",
        "embed_audio",
        "embed_vision",
        "vision_embedder",
        "model.vision_tower",
        "model.multi_modal_projector",
        "model.audio_tower",
        "model.embed_audio",
        "model.embed_vision",
        "model.vision_embedder",
    ];
    left_over_text(hf).into_iter().chain(senses.map(LeftOver::Module)).collect()
}

fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let mut text = hf.text()?.raw().clone();
    if let Some(vocab) = hf.raw().get("vocab_size") {
        text.insert("vocab_size".to_owned(), vocab.clone());
    }
    let config = Gemma4Config::new(&HfConfig::from_map(text)?)?;
    let (model, head) = text_side(w);
    Ok(Box::new(Gemma4ForCausalLm::load(config, &model, head)?))
}
