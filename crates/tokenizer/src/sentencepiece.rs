//! Tokenizers from SentencePiece's `tokenizer.model`, for folders without a
//! `tokenizer.json`.
//!
//! The file is a protobuf message of which a dozen scalar fields matter, so a
//! reader of those is shorter than a schema and its generated code. What it
//! says is what a GGUF file of the same model says; the same code goes on from
//! there. Only what that code follows exactly is accepted: BPE with byte
//! fallback and no character map. One thing differs from SentencePiece itself:
//! text after an added token gets a space in front again (where the model adds
//! one), as it does with GGUF files.
//!
//! Upstream: `LlamaTokenizer` of transformers.

use std::{collections::HashSet, path::Path};

use serde_json::{Map, Value};
use thiserror::Error;
use types::TokenId;

use crate::{GgufVocab, Result, TokenizerError};

mod wire;

use wire::{Field, fields};

const MAX_FILE_BYTES: u64 = 64 << 20;
/// Merges are found by trying all cuts of a piece.
const MAX_PIECE_BYTES: usize = 1024;
const BPE: u64 = 2;
const UNUSED: u64 = 5;

/// What is wrong with a `tokenizer.model`.
#[derive(Debug, Error)]
pub enum SentencePieceError {
    /// The file is larger than any such model.
    #[error("{len} bytes are more than {MAX_FILE_BYTES}")]
    TooLarge {
        /// Length of the file in bytes.
        len: u64,
    },
    /// The bytes are no protobuf message.
    #[error("not a SentencePiece model, or cut off")]
    Malformed,
    /// There are no pieces.
    #[error("the model has no pieces")]
    Empty,
    /// A piece that is no text, too long, or there twice.
    #[error("piece {id} is not valid")]
    Piece {
        /// Its place in the vocabulary.
        id: usize,
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
    /// The model needs something that is not supported.
    #[error("{feature} is not supported: convert the model to tokenizer.json")]
    Unsupported {
        /// What it needs.
        feature: &'static str,
    },
}

type Parsed<T> = std::result::Result<T, SentencePieceError>;

/// The vocabulary of `path`; `None` if there is no such file.
/// `config` is `tokenizer_config.json`.
pub(crate) fn read(path: &Path, config: &Map<String, Value>) -> Result<Option<GgufVocab>> {
    let failed = |source| TokenizerError::Read { path: path.to_owned(), source };
    let invalid = |source| TokenizerError::SentencePiece { path: path.to_owned(), source };
    let len = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if len > MAX_FILE_BYTES {
        return Err(invalid(SentencePieceError::TooLarge { len }));
    }
    let mut vocab = parse(&std::fs::read(path).map_err(failed)?).map_err(invalid)?;
    let flag = |name| config.get(name).and_then(Value::as_bool);
    vocab.add_bos = flag("add_bos_token");
    vocab.add_eos = flag("add_eos_token");
    Ok(Some(vocab))
}

fn parse(bytes: &[u8]) -> Parsed<GgufVocab> {
    let mut vocab = GgufVocab { model: "llama".to_owned(), ..GgufVocab::default() };
    let mut scores = Vec::new();
    let mut seen = HashSet::new();
    let (mut trainer, mut normalizer): (&[u8], &[u8]) = (&[], &[]);
    for field in fields(bytes) {
        match field? {
            (1, Field::Bytes(piece)) => {
                let (text, score, kind) = parse_piece(piece, vocab.tokens.len())?;
                if !seen.insert(text) {
                    return Err(SentencePieceError::Piece { id: vocab.tokens.len() });
                }
                vocab.tokens.push(text.to_owned());
                vocab.token_types.push(kind);
                scores.push(score);
            }
            (2, Field::Bytes(message)) => trainer = message,
            (3, Field::Bytes(message)) => normalizer = message,
            _ => {}
        }
    }
    if vocab.tokens.is_empty() {
        return Err(SentencePieceError::Empty);
    }
    vocab.scores = Some(scores);
    read_trainer(trainer, &mut vocab)?;
    vocab.add_space_prefix = Some(read_normalizer(normalizer)?);
    Ok(vocab)
}

/// Text, score, type.
fn parse_piece(bytes: &[u8], id: usize) -> Parsed<(&str, f32, i32)> {
    let invalid = SentencePieceError::Piece { id };
    let (mut text, mut score, mut kind) = ("", 0.0, 1);
    for field in fields(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(piece) => text = piece,
                Err(_) => return Err(invalid),
            },
            (2, Field::Fixed32(bits)) => score = f32::from_bits(bits),
            (3, Field::Varint(UNUSED)) => {
                return Err(SentencePieceError::Unsupported { feature: "an unused piece" });
            }
            (3, Field::Varint(value)) => kind = value as i32,
            _ => {}
        }
    }
    let valid = !text.is_empty() && text.len() <= MAX_PIECE_BYTES && (1..=6).contains(&kind);
    if valid { Ok((text, score, kind)) } else { Err(invalid) }
}

fn read_trainer(bytes: &[u8], vocab: &mut GgufVocab) -> Parsed<()> {
    // The schema's defaults; its default kind is Unigram.
    let (mut kind, mut byte_fallback) = (1, false);
    let (mut unk, mut bos, mut eos, mut pad) = (0, 1, 2, -1);
    for field in fields(bytes) {
        let (number, Field::Varint(value)) = field? else { continue };
        match number {
            3 => kind = value,
            35 => byte_fallback = value != 0,
            40 => unk = value as i32,
            41 => bos = value as i32,
            42 => eos = value as i32,
            43 => pad = value as i32,
            _ => {}
        }
    }
    let unsupported = |feature| Err(SentencePieceError::Unsupported { feature });
    match kind {
        BPE if byte_fallback => {}
        BPE => return unsupported("BPE without byte fallback"),
        1 => return unsupported("a Unigram model"),
        _ => return unsupported("a word or character model"),
    }
    let vocab_size = vocab.tokens.len();
    let id = |field, id: i32| match TokenId::try_from(id) {
        Err(_) => Ok(None),
        Ok(id) if (id as usize) < vocab_size => Ok(Some(id)),
        Ok(id) => Err(SentencePieceError::TokenId { field, id, vocab_size }),
    };
    vocab.unk_token_id = id("unk_id", unk)?;
    vocab.bos_token_id = id("bos_id", bos)?;
    vocab.eos_token_id = id("eos_id", eos)?;
    vocab.pad_token_id = id("pad_id", pad)?;
    Ok(())
}

/// Whether a text gets a space in front.
fn read_normalizer(bytes: &[u8]) -> Parsed<bool> {
    let (mut prefix, mut removes, mut escapes, mut maps) = (true, true, true, false);
    for field in fields(bytes) {
        match field? {
            (2, Field::Bytes(map)) => maps = !map.is_empty(),
            (3, Field::Varint(value)) => prefix = value != 0,
            (4, Field::Varint(value)) => removes = value != 0,
            (5, Field::Varint(value)) => escapes = value != 0,
            _ => {}
        }
    }
    let unsupported = |feature| Err(SentencePieceError::Unsupported { feature });
    if maps {
        return unsupported("normalization by a character map");
    }
    if removes {
        return unsupported("remove_extra_whitespaces");
    }
    if !escapes {
        return unsupported("escape_whitespaces off");
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests;
