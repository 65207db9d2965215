//! Gemma 3 with eyes, of which the language model is loaded.
//!
//! Upstream: `sglang/srt/models/gemma3_mm.py`.

use nn::{HfConfig, LoadError, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over_eyes, pack_all, text_side},
    gemma3_text::{Gemma3Config, Gemma3ForCausalLm},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Gemma3ForConditionalGeneration"],
    model_types: &["gemma3"],
    models: "Gemma 3 4B, 12B and 27B: their text side",
    left_over: left_over_eyes,
    quant: pack_all,
    load,
};

fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let text = hf.text()?;
    let mut config = Gemma3Config::new(&text)?;
    if let Some(vocab) = hf.raw().get("vocab_size").and_then(serde_json::Value::as_u64) {
        config.vocab_size = vocab as usize;
    }
    let (model, head) = text_side(w);
    Ok(Box::new(Gemma3ForCausalLm::load(config, &text, &model, head)?))
}
