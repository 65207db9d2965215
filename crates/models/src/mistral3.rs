//! Mistral Small 3.1 and later, Devstral, Ministral 3: a language model with eyes, of
//! which the language model is loaded.
//!
//! Upstream: `mlx_lm/models/mistral3.py`.

use nn::{HfConfig, LoadError, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over_eyes, pack_all, text_side},
    llama::LlamaForCausalLm,
    ministral3::Ministral3ForCausalLm,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Mistral3ForConditionalGeneration"],
    model_types: &["mistral3"],
    models: "Mistral Small 3.1 and later, Devstral, Ministral 3: their text side",
    left_over: left_over_eyes,
    quant: pack_all,
    load,
};

fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let text = hf.text()?;
    let (model, head) = text_side(w);
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
