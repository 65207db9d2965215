//! DeepSeek-V3: V2's graph with experts that a bias chooses and sigmoids weigh.
//!
//! Upstream: `sglang/srt/models/deepseek_v2.py` (`DeepseekV3ForCausalLM`).

use nn::{HfConfig, LeftOver};

use crate::{
    ModelEntry,
    config::{left_over, pack_all},
    deepseek_v2::{DeepseekConfig, DeepseekForCausalLm},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["DeepseekV3ForCausalLM"],
    model_types: &["deepseek_v3", "kimi_k2"],
    models: "DeepSeek-V3, R1, V3.1, Kimi-K2, Moonlight",
    left_over: left_over_layers,
    quant: pack_all,
    load: |hf, weights| DeepseekForCausalLm::load(DeepseekConfig::v3(hf)?, hf, weights),
};

/// Checkpoints hold a layer that predicts the token after the next.
pub(crate) fn left_over_layers(hf: &HfConfig) -> Vec<LeftOver<'static>> {
    let layers = hf.get("num_hidden_layers").and_then(serde_json::Value::as_u64);
    let mut allowed = left_over(hf);
    allowed.extend(layers.map(|layers| LeftOver::LayersFrom(layers as usize)));
    allowed
}
