//! Granite 3 with experts: Granite 4's graph with attention in all layers, and no MLP beside
//! the experts.
//!
//! Upstream: `sglang/srt/models/granitemoe.py`.

use nn::{HfConfig, LoadError};
use serde_json::{Value, json};

use crate::{ModelEntry, config::ROUTER_PACKING, granite, granitemoehybrid};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["GraniteMoeForCausalLM"],
    model_types: &["granitemoe"],
    models: "Granite 3.x 1B-A400M and 3B-A800M",
    left_over: granite::ENTRY.left_over,
    quant: |path| match path.ends_with("block_sparse_moe.router.layer") {
        true => ROUTER_PACKING,
        false => (granite::ENTRY.quant)(path),
    },
    load: |hf, weights| granitemoehybrid::load(&as_hybrid(hf)?, weights),
};

/// The same in the names of Granite 4's config.json.
fn as_hybrid(hf: &HfConfig) -> Result<HfConfig, LoadError> {
    let mut raw = hf.raw().clone();
    let layers = raw.get("num_hidden_layers").and_then(Value::as_u64).unwrap_or(0);
    // Not as many as a wrong number says: it is refused when it is compared with the list.
    let layers = vec!["attention"; layers.min(1 << 16) as usize];
    for (field, value) in [
        ("layer_types", json!(layers)),
        ("position_embedding_type", json!("rope")),
        ("shared_intermediate_size", json!(0)),
    ] {
        raw.insert(field.to_owned(), value);
    }
    HfConfig::from_map(raw)
}
