//! Qwen2-VL and Qwen2.5-VL: Qwen2 with eyes, of which the language model is loaded.
//!
//! Upstream: `sglang/srt/models/qwen2_vl.py`, `sglang/srt/models/qwen2_5_vl.py`.

use nn::{HfConfig, LoadError, Weights};
use serde_json::Value;

use crate::{
    CausalLm, ModelEntry,
    config::{left_over_eyes, pack_all, text_side},
    qwen2::Qwen2ForCausalLm,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"],
    model_types: &["qwen2_vl", "qwen2_5_vl"],
    models: "Qwen2-VL, QVQ, Qwen2.5-VL: their text side",
    left_over: left_over_eyes,
    quant: pack_all,
    load,
};

fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let (model, head) = text_side(w);
    Ok(Box::new(Qwen2ForCausalLm::load(&text(hf)?, &model, head)?))
}

/// The language model's config. A token of text has the same position thrice, in time,
/// height and width, so its rope is the plain one.
pub(crate) fn text(hf: &HfConfig) -> Result<HfConfig, LoadError> {
    let mut raw = hf.text()?.raw().clone();
    for field in ["rope_scaling", "rope_parameters"] {
        let Some(Value::Object(rope)) = raw.get_mut(field) else { continue };
        for kind in ["type", "rope_type"] {
            if let Some(kind) = rope.get_mut(kind).filter(|kind| **kind == "mrope") {
                *kind = "default".into();
            }
        }
    }
    HfConfig::from_map(raw)
}
