//! Qwen3.5 and Qwen3.6 with experts: the graph is Qwen3.5's, whose config says where
//! experts are.
//!
//! Upstream: `sglang/srt/models/qwen3_5.py`.

use crate::{
    ModelEntry,
    qwen3_5::{left_over_eyes, load},
    qwen3_next::pack_routers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"],
    model_types: &["qwen3_5_moe", "qwen3_5_moe_text"],
    models: "Qwen3.5-35B-A3B, Qwen3.6-35B-A3B and their larger ones: their text side",
    left_over: left_over_eyes,
    quant: pack_routers,
    load,
};
