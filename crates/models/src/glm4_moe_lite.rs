//! GLM-4.7-Flash: DeepSeek-V3's graph.
//!
//! Upstream: `sglang/srt/models/glm4_moe_lite.py`.

use crate::{
    ModelEntry,
    config::pack_all,
    deepseek_v2::{DeepseekConfig, DeepseekForCausalLm},
    deepseek_v3::left_over_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Glm4MoeLiteForCausalLM"],
    model_types: &["glm4_moe_lite"],
    models: "GLM-4.7-Flash",
    left_over: left_over_layers,
    quant: pack_all,
    load: |hf, weights| {
        let mut config = DeepseekConfig::v3(hf)?;
        config.mla.latent_eps = config.rms_norm_eps;
        DeepseekForCausalLm::load(config, hf, weights)
    },
};
