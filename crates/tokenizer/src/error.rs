//! What can go wrong while a tokenizer is loaded or used.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::SentencePieceError;

/// Shorthand for this crate's results.
pub type Result<T, E = TokenizerError> = std::result::Result<T, E>;

/// A tokenizer that cannot be loaded, or text that it cannot encode.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The folder has neither `tokenizer.json` nor `tokenizer.model`.
    #[error("no tokenizer.json or tokenizer.model in {}", dir.display())]
    NotFound {
        /// The model folder.
        dir: PathBuf,
    },
    /// There is none, by the operator's choice.
    #[error("this server runs without a tokenizer (--skip-tokenizer-init): send token ids")]
    Skipped,
    /// A file that is there cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not valid JSON.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it stops being JSON.
        source: serde_json::Error,
    },
    /// SentencePiece's `tokenizer.model` is broken or not supported.
    #[error("cannot use {}: {source}", path.display())]
    SentencePiece {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SentencePieceError,
    },
    /// `tokenizer.json`, or the vocabulary of a GGUF file, is inconsistent.
    #[error("invalid tokenizer: {source}")]
    Invalid {
        /// What the tokenizer library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `tokenizer_config.json` adds a token that does not fit `tokenizer.json`.
    #[error("added token '{content}' would get id {got}, tokenizer_config.json says {id}")]
    AddedTokenId {
        /// The token.
        content: String,
        /// Its id by `tokenizer_config.json`.
        id: u32,
        /// Its id by `tokenizer.json`, or the next one that is free.
        got: u32,
    },
    /// An id far beyond any vocabulary.
    #[error("token ids go up to {size}, more than {max}")]
    VocabSize {
        /// One more than the highest id.
        size: usize,
        /// The most that is accepted.
        max: usize,
    },
    /// The decoder of `tokenizer.json` is none of the known ones.
    #[error("unsupported tokenizer decoder {decoder}")]
    UnsupportedDecoder {
        /// Its JSON.
        decoder: String,
    },
    /// `tokenizer.ggml.model` is none of the known ones.
    #[error("unsupported GGUF tokenizer model '{model}' (supported: gpt2, llama)")]
    UnsupportedModel {
        /// `tokenizer.ggml.model`.
        model: String,
    },
    /// `tokenizer.ggml.pre` is none of the known ones.
    #[error("unsupported GGUF pre-tokenizer '{pre}' (supported: {known})")]
    UnsupportedPreTokenizer {
        /// `tokenizer.ggml.pre`.
        pre: String,
        /// The supported names, comma separated.
        known: String,
    },
    /// The metadata of a GGUF file contradict each other.
    #[error("invalid GGUF vocabulary: {field} has {got} entries, expected {expected}")]
    GgufLength {
        /// The metadata key, without its `tokenizer.ggml.` prefix.
        field: &'static str,
        /// Entries found.
        got: usize,
        /// Entries needed.
        expected: usize,
    },
    /// A token id of the metadata lies outside the vocabulary.
    #[error("invalid GGUF vocabulary: {field} is {id}, the vocabulary has {vocab_size} tokens")]
    GgufTokenId {
        /// The metadata key, without its `tokenizer.ggml.` prefix.
        field: &'static str,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// The text cannot be encoded.
    #[error("cannot encode text of {len} bytes: {reason}")]
    Encode {
        /// Length of the text in bytes.
        len: usize,
        /// What the tokenizer library said.
        reason: String,
    },
}
