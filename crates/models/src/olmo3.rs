//! OLMo 3: OLMo 2's layers, three of four with a window.
//!
//! Upstream: `sglang/srt/models/olmo2.py`.

use nn::{HfConfig, LoadError};
use serde::Deserialize;

use crate::{
    ModelEntry,
    config::{LayerType, check_sizes, sliding_layers},
    olmo2::{self, Olmo2ForCausalLm},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Olmo3ForCausalLM"],
    model_types: &["olmo3"],
    models: "OLMo 3",
    left_over: olmo2::ENTRY.left_over,
    quant: olmo2::ENTRY.quant,
    load: |config, weights| {
        Ok(Box::new(Olmo2ForCausalLm::load(config, weights, windows(config)?)?))
    },
};

#[derive(Deserialize)]
struct Windows {
    num_hidden_layers: usize,
    sliding_window: usize,
    layer_types: Option<Vec<LayerType>>,
}

/// The window of each layer.
fn windows(hf: &HfConfig) -> Result<Vec<Option<usize>>, LoadError> {
    let Windows { num_hidden_layers, sliding_window, layer_types } = hf.parse()?;
    check_sizes(&[("sliding_window", sliding_window)])?;
    let slides = sliding_layers(layer_types.as_deref(), 4, num_hidden_layers)?;
    Ok(slides.iter().map(|slides| slides.then_some(sliding_window)).collect())
}
