//! Which tokens end a generation.
//!
//! The surprising part: `generation_config.json` replaces `config.json`, while
//! the tokenizer's EOS is always added. Instruct checkpoints list their turn
//! ends in the one place or the other.
//!
//! Upstream: `sglang/srt/configs/model_config.py` (`get_hf_eos_token_id`).

use std::collections::BTreeSet;

use serde_json::Value;
use types::TokenId;

use crate::Tokenizer;

/// The EOS ids of a model, ascending: those of `generation_config` if it names
/// any, otherwise those of `config`; and in either case the tokenizer's.
pub fn eos_token_ids(
    generation_config: Option<&Value>,
    config: Option<&Value>,
    tokenizer: Option<&Tokenizer>,
) -> Vec<TokenId> {
    let mut ids = listed_ids(generation_config)
        .or_else(|| listed_ids(config))
        .or_else(|| listed_ids(config?.get("text_config")))
        .unwrap_or_default();
    ids.extend(tokenizer.and_then(Tokenizer::eos_token_id));
    ids.into_iter().collect()
}

/// `eos_token_id` as a number or a list; `None` if absent, null or empty.
fn listed_ids(config: Option<&Value>) -> Option<BTreeSet<TokenId>> {
    let as_id = |value: &Value| value.as_u64().and_then(|id| TokenId::try_from(id).ok());
    let ids: BTreeSet<_> = match config?.get("eos_token_id")? {
        Value::Array(values) => values.iter().filter_map(as_id).collect(),
        value => as_id(value).into_iter().collect(),
    };
    (!ids.is_empty()).then_some(ids)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generation_config_replaces_config() {
        let (generation, config) = (json!({"eos_token_id": [9, 7]}), json!({"eos_token_id": 3}));
        assert_eq!(eos_token_ids(Some(&generation), Some(&config), None), [7, 9]);
        assert_eq!(eos_token_ids(None, Some(&config), None), [3]);
        for silent in [json!({}), json!({"eos_token_id": null}), json!({"eos_token_id": []})] {
            assert_eq!(eos_token_ids(Some(&silent), Some(&config), None), [3]);
        }
        let nested = json!({"text_config": {"eos_token_id": [1, 106]}});
        assert_eq!(eos_token_ids(None, Some(&nested), None), [1, 106]);
        assert!(eos_token_ids(None, None, None).is_empty());
    }

    #[test]
    fn nonsense_is_no_id() {
        let config = json!({"eos_token_id": [-1, "2", 4294967296_u64, 5]});
        assert_eq!(eos_token_ids(None, Some(&config), None), [5]);
    }
}
