//! What the families' configs have in common.

use nn::{Activation, HfConfig, LeftOver, LoadError};

/// Whether the head is the embedding. Untied where config.json says nothing.
pub(crate) fn is_tied(hf: &HfConfig) -> bool {
    hf.get("tie_word_embeddings").and_then(serde_json::Value::as_bool).unwrap_or(false)
}

pub(crate) fn config_error(field: &str, reason: String) -> LoadError {
    LoadError::Config { file: "config.json", field: field.to_owned(), reason }
}

/// Refuses the first field that is zero.
pub(crate) fn check_positive(fields: &[(&str, usize)]) -> Result<(), LoadError> {
    match fields.iter().find(|(_, value)| *value == 0) {
        Some((field, _)) => Err(config_error(field, "must be positive".to_owned())),
        None => Ok(()),
    }
}

/// Each head of K and V serves as many of the queries'.
pub(crate) fn check_kv_heads(heads: usize, kv_heads: usize) -> Result<(), LoadError> {
    if heads.is_multiple_of(kv_heads) {
        return Ok(());
    }
    let reason = format!("{kv_heads} does not divide num_attention_heads");
    Err(config_error("num_key_value_heads", reason))
}

/// Old converters stored the rotary frequencies; tied heads are sometimes
/// stored a second time.
pub(crate) fn left_over(config: &HfConfig) -> Vec<LeftOver<'static>> {
    let mut allowed = vec![LeftOver::Suffix("rotary_emb.inv_freq")];
    if is_tied(config) {
        allowed.push(LeftOver::Module("lm_head"));
    }
    allowed
}

pub(crate) fn default_act() -> Activation {
    Activation::Silu
}
