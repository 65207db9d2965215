//! Seed-OSS: Llama's graph, with a bias on the output of attention that config.json
//! names apart from those of q, k and v.
//!
//! Upstream: `sglang/srt/models/seed_oss.py`.

use crate::{ModelEntry, llama};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["SeedOssForCausalLM"],
    model_types: &["seed_oss"],
    models: "Seed-OSS-36B",
    left_over: llama::ENTRY.left_over,
    quant: llama::ENTRY.quant,
    load: llama::ENTRY.load,
};
