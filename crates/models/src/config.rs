//! What the families' configs have in common.

use mlx::quantized::QuantMode;
use nn::{Activation, HfConfig, LeftOver, LoadError, QuantChoice, QuantSpec, RopeConfig, Weights};
use serde::Deserialize;
use serde_json::Value;

/// `rope` as read from `hf`, with the family's base of frequencies where that names none.
pub(crate) fn with_default_theta(rope: RopeConfig, hf: &HfConfig, theta: f32) -> RopeConfig {
    let nested = hf.get("rope_parameters").and_then(|nested| nested.get("rope_theta"));
    match hf.get("rope_theta").or(nested) {
        Some(_) => rope,
        None => RopeConfig { theta, ..rope },
    }
}

/// `rope` that turns the first `rotary_dim` elements of a head, if config.json has that.
pub(crate) fn with_rotary_dim(
    rope: RopeConfig,
    rotary_dim: Option<usize>,
    head_dim: usize,
) -> RopeConfig {
    let Some(dims) = rotary_dim else { return rope };
    // In the middle, so that rounding does not lose an element.
    RopeConfig { partial_rotary_factor: (dims as f32 + 0.5) / head_dim as f32, ..rope }
}

/// Whether the head is the embedding. Untied where config.json says nothing.
pub(crate) fn is_tied(hf: &HfConfig) -> Result<bool, LoadError> {
    let field = "tie_word_embeddings";
    match hf.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(is_tied)) => Ok(*is_tied),
        Some(other) => Err(config_error(field, format!("{other} is neither true nor false"))),
    }
}

pub(crate) fn config_error(field: &str, reason: String) -> LoadError {
    LoadError::Config { file: "config.json", field: field.to_owned(), reason }
}

/// Refuses the first size that is zero, or more than any dimension of an array.
pub(crate) fn check_sizes(fields: &[(&str, usize)]) -> Result<(), LoadError> {
    for &(field, size) in fields {
        if size == 0 {
            return Err(config_error(field, "must be positive".to_owned()));
        }
        if i32::try_from(size).is_err() {
            return Err(config_error(field, format!("{size} is too large")));
        }
    }
    Ok(())
}

/// Each head of K and V serves as many of the queries'.
pub(crate) fn check_kv_heads(heads: usize, kv_heads: usize) -> Result<(), LoadError> {
    if heads.is_multiple_of(kv_heads) {
        return Ok(());
    }
    let reason = format!("{kv_heads} does not divide num_attention_heads");
    Err(config_error("num_key_value_heads", reason))
}

/// Heads of queries and of K and V, whose width follows from `hidden_size` unless it is
/// given.
pub(crate) fn check_heads(
    hidden_size: usize,
    [heads, kv_heads]: [usize; 2],
    head_dim: Option<usize>,
) -> Result<(), LoadError> {
    check_sizes(&[("num_attention_heads", heads), ("num_key_value_heads", kv_heads)])?;
    match head_dim {
        Some(head_dim) => check_sizes(&[("head_dim", head_dim)])?,
        None if !hidden_size.is_multiple_of(heads) => {
            let reason = format!("{heads} does not divide hidden_size");
            return Err(config_error("num_attention_heads", reason));
        }
        None => {}
    }
    check_kv_heads(heads, kv_heads)
}

/// A list in config.json has an entry for each layer.
pub(crate) fn check_length(
    field: &str,
    entries: usize,
    num_layers: usize,
) -> Result<(), LoadError> {
    if entries == num_layers {
        return Ok(());
    }
    Err(config_error(field, format!("{entries} entries for {num_layers} layers")))
}

/// An entry of `layer_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerType {
    FullAttention,
    SlidingAttention,
}

/// Whether each layer slides: as `layer_types` says, or all but every `pattern`th.
pub(crate) fn sliding_layers(
    types: Option<&[LayerType]>,
    pattern: usize,
    num_layers: usize,
) -> Result<Vec<bool>, LoadError> {
    if let Some(types) = types {
        check_length("layer_types", types.len(), num_layers)?;
        return Ok(types.iter().map(|&of| of == LayerType::SlidingAttention).collect());
    }
    check_sizes(&[("sliding_window_pattern", pattern)])?;
    Ok((1..=num_layers).map(|nth| !nth.is_multiple_of(pattern)).collect())
}

/// Old converters stored the rotary frequencies; tied heads are sometimes
/// stored a second time.
pub(crate) fn left_over(config: &HfConfig) -> Vec<LeftOver<'static>> {
    let mut allowed = vec![LeftOver::Suffix("rotary_emb.inv_freq")];
    if is_tied(config).unwrap_or(false) {
        allowed.push(LeftOver::Module("lm_head"));
    }
    allowed
}

/// The same for a model with eyes, of which the language model is loaded.
pub(crate) fn left_over_eyes(config: &HfConfig) -> Vec<LeftOver<'static>> {
    let eyes = [
        "vision_tower",
        "visual",
        "multi_modal_projector",
        "model.vision_tower",
        "model.visual",
        "model.multi_modal_projector",
    ];
    let tied = is_tied(config).unwrap_or(false).then_some("language_model.lm_head");
    left_over(config)
        .into_iter()
        .chain(eyes.into_iter().chain(tied).map(LeftOver::Module))
        .collect()
}

/// Its language model and the head: as transformers writes them now, alone, or as
/// transformers did and mlx-lm does.
pub(crate) fn text_side(w: &Weights) -> (Weights, Weights) {
    let sides = (w.at("language_model.model"), w.at("language_model.lm_head"));
    let published = ["model.language_model", "model"];
    match published.iter().find(|at| !w.at(at).at("layers").is_empty()) {
        Some(at) => (w.at(at).told_as(&sides.0), w.at("lm_head").told_as(&sides.1)),
        None => sides,
    }
}

/// Gates and values as one matrix, and what comes behind them.
pub(crate) const FUSED_NAMES: [&str; 2] = ["gate_up_proj", "down_proj"];

/// No exceptions from packing all matrices alike.
pub(crate) fn pack_all(_path: &str) -> QuantChoice {
    QuantChoice::Default
}

/// A router chooses wrong experts sooner than a matrix of them is off by much.
pub(crate) const ROUTER_PACKING: QuantChoice =
    QuantChoice::Like(QuantSpec { group_size: 64, bits: 8, mode: QuantMode::Affine });

pub(crate) fn default_act() -> Activation {
    Activation::Silu
}
