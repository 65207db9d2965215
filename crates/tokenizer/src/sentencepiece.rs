//! Tokenizers from SentencePiece's `tokenizer.model`, for folders without a
//! `tokenizer.json`.
//!
//! Text is encoded as SentencePiece itself does it: a conversion to the models of
//! the tokenizers library differs in corners (sequences of the character map,
//! ties between scores, spaces around user-defined pieces). What SentencePiece
//! does not know are added tokens; which texts between them get a space in
//! front is transformers' `legacy` and `add_prefix_space`.
//!
//! Upstream: `sentencepiece` (0.2.3 where versions differ); `LlamaTokenizer` and `SpmConverter` of transformers.

use serde_json::{Map, Value, json};
use thiserror::Error;
use types::TokenId;

use crate::{
    SpecialTokens,
    text_encoder::{OwnEncoder, Vocabulary},
};

mod chars_map;
mod encoder;
mod model;
mod normalizer;
mod prefix_table;
mod unigram;
mod wire;

use chars_map::CharsMap;
use encoder::{Encoder, PrefixSpace};
use model::{Model, PieceKind};
use normalizer::SPACE;

/// What is wrong with a SentencePiece model.
#[derive(Debug, Error)]
pub enum SentencePieceError {
    /// The bytes are no protobuf message.
    #[error("not a SentencePiece model, or cut off")]
    Malformed,
    /// There are no pieces.
    #[error("the model has no pieces")]
    Empty,
    /// A piece that is no text, too long, of no kind, without a score or there
    /// twice.
    #[error("piece {id} is not valid")]
    Piece {
        /// Its place in the vocabulary.
        id: usize,
    },
    /// There is no unknown piece, or more than one.
    #[error("the model needs one unknown piece")]
    Unknown,
    /// Byte fallback without all bytes.
    #[error("byte_fallback is set, but no piece stands for byte 0x{byte:02X}")]
    MissingByte {
        /// The first byte that is missing.
        byte: u8,
    },
    /// A token with a role lies outside the vocabulary.
    #[error("{field} is {id}, the vocabulary has {vocab_size} tokens")]
    TokenId {
        /// The field of the trainer's settings.
        field: &'static str,
        /// The id.
        id: TokenId,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// The character map is damaged.
    #[error("precompiled_charsmap: {reason}")]
    CharsMap {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The model needs something that is not supported.
    #[error("{feature} is not supported: convert the model to tokenizer.json")]
    Unsupported {
        /// What it needs.
        feature: &'static str,
    },
}

type Parsed<T> = std::result::Result<T, SentencePieceError>;

/// The vocabulary in the bytes of a SentencePiece model. `config` is
/// `tokenizer_config.json`.
pub(crate) fn read(bytes: &[u8], config: &Map<String, Value>) -> Parsed<Vocabulary> {
    let model = Model::parse(bytes)?;
    let flag = |name| config.get(name).and_then(Value::as_bool);
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let prefix_space = match flag("add_prefix_space") {
        Some(false) => PrefixSpace::Never,
        // Llama's class is the one whose default is not the old behaviour.
        _ if flag("legacy").unwrap_or(!class.starts_with("LlamaTokenizer")) => PrefixSpace::Always,
        _ => PrefixSpace::First,
    };
    let trainer = &model.trainer;
    let before = trainer.bos_id.filter(|_| flag("add_bos_token").unwrap_or(true));
    // T5's tokenizer has no flag: it always ends a text.
    let after = trainer.eos_id.filter(|_| flag("add_eos_token").unwrap_or(class == "T5Tokenizer"));
    let encoder = OwnEncoder {
        text: Box::new(Encoder::new(&model, prefix_space)?),
        before: before.into_iter().collect(),
        after: after.into_iter().collect(),
    };
    let strips_space = model.normalizer.adds_dummy_prefix && prefix_space != PrefixSpace::Never;
    let json = tokenizer_json(&model, strips_space).to_string();
    Ok(Vocabulary { json, roles: roles(&model), encoder: Some(encoder) })
}

/// An error if `map`, a `precompiled_charsmap`, is damaged.
pub(crate) fn check_chars_map(map: &[u8]) -> Parsed<()> {
    CharsMap::parse(map).map(|_| ())
}

/// The tokens with a role.
fn roles(model: &Model) -> SpecialTokens {
    let mut roles = SpecialTokens::default();
    let trainer = &model.trainer;
    for (role, id) in [
        ("bos_token", trainer.bos_id),
        ("eos_token", trainer.eos_id),
        ("unk_token", Some(trainer.unk_id)),
        ("pad_token", trainer.pad_id),
    ] {
        if let Some(id) = id {
            roles.set(role, &model.pieces[id as usize].text);
        }
    }
    roles
}

/// The vocabulary as `tokenizer.json` has it; its model does not encode.
fn tokenizer_json(model: &Model, strips_space: bool) -> Value {
    let pieces = || model.pieces.iter().zip(0 as TokenId..);
    let vocab: Map<String, Value> =
        pieces().map(|(piece, id)| (piece.text.clone(), json!(id))).collect();
    let is_added = |kind| matches!(kind, PieceKind::Control | PieceKind::Unknown);
    let added = pieces().filter(|(piece, _)| is_added(piece.kind)).map(|(piece, id)| {
        json!({"id": id, "content": piece.text, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    });
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "Fuse"}),
    ];
    if model.trainer.byte_fallback {
        decoders.insert(1, json!({"type": "ByteFallback"}));
    }
    if strips_space {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": ""},
    })
}

#[cfg(test)]
mod tests;
