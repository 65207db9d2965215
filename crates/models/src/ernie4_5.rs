//! Ernie 4.5, dense: Llama's graph with one switch for all biases, and heads that
//! rotate in pairs of neighbours.
//!
//! Upstream: `sglang/srt/models/ernie4.py`.

use nn::{HfConfig, LoadError};
use serde_json::Value;

use crate::{ModelEntry, llama};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"],
    model_types: &["ernie4_5"],
    models: "Ernie 4.5 0.3B",
    left_over: llama::ENTRY.left_over,
    quant: llama::ENTRY.quant,
    load: |config, weights| (llama::ENTRY.load)(&as_llama(config)?, weights),
};

/// The same in the names of Llama's config.json.
fn as_llama(hf: &HfConfig) -> Result<HfConfig, LoadError> {
    let mut raw = hf.raw().clone();
    let bias = raw.get("use_bias").cloned().unwrap_or(Value::Bool(false));
    for (field, value) in
        [("attention_bias", bias.clone()), ("mlp_bias", bias), ("rope_traditional", true.into())]
    {
        raw.insert(field.to_owned(), value);
    }
    HfConfig::from_map(raw)
}
