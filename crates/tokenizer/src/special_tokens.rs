//! The tokens with a role: begin and end of text, padding, unknown.
//!
//! Upstream: `special_tokens_map` of transformers' `PreTrainedTokenizerBase`.

use serde_json::{Map, Value};

/// The names under which a role may appear in `tokenizer_config.json`.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Texts of the tokens with a role. These are also the variables of the same
/// name in a chat template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `(role, text)`, e.g. `("bos_token", "<s>")`.
    roles: Vec<(String, String)>,
    /// `additional_special_tokens`.
    additional: Vec<String>,
}

impl SpecialTokens {
    /// Reads one of `tokenizer_config.json` and `special_tokens_map.json`.
    /// Entries that are already there are kept.
    pub(crate) fn merge_json(&mut self, config: &Map<String, Value>) {
        for role in ROLES {
            if let Some(text) = config.get(role).and_then(token_text) {
                self.set(role, text);
            }
        }
        if let Some(Value::Array(tokens)) = config.get("additional_special_tokens")
            && self.additional.is_empty()
        {
            self.additional = tokens.iter().filter_map(token_text).map(str::to_owned).collect();
        }
    }

    /// Gives `role` (`bos_token`, ...) a text unless it has one.
    pub(crate) fn set(&mut self, role: &str, text: &str) {
        if self.get(role).is_none() {
            self.roles.push((role.to_owned(), text.to_owned()));
        }
    }

    /// Takes the roles that are still without a text from `other`.
    pub(crate) fn fill(&mut self, other: &Self) {
        for (role, text) in other.roles() {
            self.set(role, text);
        }
    }

    /// The text of a role, e.g. of `eos_token`.
    pub fn get(&self, role: &str) -> Option<&str> {
        self.roles.iter().find(|(name, _)| name == role).map(|(_, text)| text.as_str())
    }

    /// All `(role, text)` pairs.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.roles.iter().map(|(role, text)| (role.as_str(), text.as_str()))
    }

    /// Special tokens without a role.
    pub fn additional(&self) -> &[String] {
        &self.additional
    }
}

/// A token is a string or an object with a `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn first_file_wins_and_both_spellings_are_read() {
        let mut tokens = SpecialTokens::default();
        let config =
            json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null});
        tokens.merge_json(config.as_object().unwrap());
        let map = json!({"bos_token": "<other>", "pad_token": "<pad>",
            "additional_special_tokens": ["<a>", {"content": "<b>"}]});
        tokens.merge_json(map.as_object().unwrap());
        assert_eq!(tokens.get("bos_token"), Some("<s>"));
        assert_eq!(tokens.get("eos_token"), Some("</s>"));
        assert_eq!(tokens.get("pad_token"), Some("<pad>"));
        assert_eq!(tokens.get("unk_token"), None);
        assert_eq!(tokens.additional(), ["<a>", "<b>"]);
    }
}
