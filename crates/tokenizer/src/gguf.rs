//! Tokenizers from GGUF metadata.
//!
//! A GGUF file stores a vocabulary and *names* the code that uses it. Both
//! kinds are rewritten into the `tokenizer.json` that the original model came
//! with, so there is one encoder and one set of rules. SentencePiece
//! vocabularies carry scores instead of merges; the merges follow from them.

use serde_json::{Map, Value, json};
use types::TokenId;

use crate::{Result, SpecialTokens, TokenizerError, post_processor};

mod pre_tokenizer;
mod sentencepiece;

/// The `tokenizer.*` metadata of a GGUF file, as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: String,
    /// `tokenizer.ggml.pre`: which regular expression splits the text.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`, one per token: 1 normal, 2 unknown,
    /// 3 control, 4 user-defined, 5 unused, 6 byte. Empty: all normal.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores`, one per token; needed by `llama`.
    pub scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.merges`, two tokens with a space between; needed by `gpt2`.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos_token_id: Option<TokenId>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos_token_id: Option<TokenId>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk_token_id: Option<TokenId>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad_token_id: Option<TokenId>,
    /// `tokenizer.ggml.add_bos_token`. Unset: the default of the kind.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`. Unset: the default of the kind.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template` as `default`, and every `tokenizer.chat_template.NAME`.
    pub chat_templates: Vec<(String, String)>,
}

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

impl GgufVocab {
    fn token_type(&self, id: usize) -> i32 {
        self.token_types.get(id).copied().unwrap_or(1)
    }

    /// Text of a token named by the metadata.
    fn named(&self, field: &'static str, id: Option<TokenId>) -> Result<Option<&str>> {
        let Some(id) = id else { return Ok(None) };
        let vocab_size = self.tokens.len();
        let text = self.tokens.get(id as usize);
        Ok(Some(text.ok_or(TokenizerError::GgufTokenId { field, id, vocab_size })?))
    }

    fn check_lengths(&self) -> Result<()> {
        let expected = self.tokens.len();
        let check = |field, got| match got {
            _ if got == expected => Ok(()),
            _ => Err(TokenizerError::GgufLength { field, got, expected }),
        };
        if !self.token_types.is_empty() {
            check("token_type", self.token_types.len())?;
        }
        self.scores.as_ref().map_or(Ok(()), |scores| check("scores", scores.len()))
    }
}

/// The tokens with a role.
pub(crate) fn special_tokens(vocab: &GgufVocab) -> Result<SpecialTokens> {
    let mut special = SpecialTokens::default();
    for (role, field, id) in [
        ("bos_token", "bos_token_id", vocab.bos_token_id),
        ("eos_token", "eos_token_id", vocab.eos_token_id),
        ("unk_token", "unknown_token_id", vocab.unk_token_id),
        ("pad_token", "padding_token_id", vocab.pad_token_id),
    ] {
        if let Some(text) = vocab.named(field, id)? {
            special.set(role, text);
        }
    }
    Ok(special)
}

/// The `tokenizer.json` that says the same.
pub(crate) fn tokenizer_json(vocab: &GgufVocab) -> Result<Value> {
    vocab.check_lengths()?;
    match vocab.model.as_str() {
        "gpt2" => byte_level_json(vocab),
        "llama" => sentencepiece::tokenizer_json(vocab),
        model => Err(TokenizerError::UnsupportedModel { model: model.to_owned() }),
    }
}

fn byte_level_json(vocab: &GgufVocab) -> Result<Value> {
    let pre = pre_tokenizer::find(vocab.pre.as_deref())?;
    let merges: Vec<Value> = vocab.merges.iter().map(|merge| json!(merge)).collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(vocab),
        "normalizer": if pre.nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre.to_json(vocab.add_space_prefix.unwrap_or(false)),
        "post_processor": post_processor(vocab, pre.adds_bos)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "ignore_merges": pre.ignores_merges, "vocab": vocab_map(vocab), "merges": merges},
    }))
}

fn vocab_map(vocab: &GgufVocab) -> Map<String, Value> {
    vocab.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect()
}

/// Control tokens, and user-defined ones: both are found before the text is split.
fn added_tokens(vocab: &GgufVocab) -> Vec<Value> {
    let is_added = |&(id, token): &(usize, &String)| match vocab.token_type(id) {
        CONTROL | UNKNOWN => true,
        // With spaces spelt in SentencePiece's way it can only match normalised
        // text: the merges have to build it.
        USER_DEFINED => !token.contains(sentencepiece::SPACE),
        _ => false,
    };
    let entry = |(id, token)| {
        json!({"id": id, "content": token, "special": vocab.token_type(id) != USER_DEFINED,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    };
    vocab.tokens.iter().enumerate().filter(is_added).map(entry).collect()
}

/// Puts BOS before and EOS after a text where the metadata ask for it.
fn post_processor(vocab: &GgufVocab, adds_bos: bool) -> Result<Value> {
    let bos = vocab.named("bos_token_id", vocab.bos_token_id)?.zip(vocab.bos_token_id);
    let eos = vocab.named("eos_token_id", vocab.eos_token_id)?.zip(vocab.eos_token_id);
    let bos = bos.filter(|_| vocab.add_bos.unwrap_or(adds_bos));
    let eos = eos.filter(|_| vocab.add_eos.unwrap_or(false));
    Ok(post_processor::around(bos.as_slice(), eos.as_slice()))
}

#[cfg(test)]
mod tests;
