//! Qwen3-VL: Qwen3 with eyes, of which the language model is loaded.
//!
//! Upstream: `sglang/srt/models/qwen3_vl.py`.

use nn::{HfConfig, LoadError, Weights};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over_eyes, pack_all, text_side},
    qwen2_vl::text,
    qwen3::Qwen3ForCausalLm,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen3VLForConditionalGeneration"],
    model_types: &["qwen3_vl"],
    models: "Qwen3-VL, dense: their text side",
    left_over: left_over_eyes,
    quant: pack_all,
    load,
};

fn load(hf: &HfConfig, w: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let (model, head) = text_side(w);
    Ok(Box::new(Qwen3ForCausalLm::load(&text(hf)?, &model, head)?))
}
