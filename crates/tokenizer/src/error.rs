//! What can go wrong while a tokenizer is loaded or used.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::{SentencePieceError, TiktokenError};

/// Shorthand for this crate's results.
pub type Result<T, E = TokenizerError> = std::result::Result<T, E>;

/// A tokenizer that cannot be loaded, or text that it cannot encode.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The folder has none of the files that a vocabulary may be in.
    #[error(
        "no tokenizer.json, tiktoken.model, *.tiktoken, tokenizer.model, spiece.model, \
         merges.txt or vocab.txt in {}",
        dir.display()
    )]
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
    /// A file is larger than any vocabulary.
    #[error("{} has {len} bytes, more than {max}", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The most that is accepted.
        max: u64,
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
    /// A tiktoken file is broken or of an unknown family.
    #[error("cannot use {}: {source}", path.display())]
    Tiktoken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TiktokenError,
    },
    /// A line of `vocab.txt` or `merges.txt` is not one.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// How text is split before these merges is known for some classes only.
    #[error(
        "cannot use {}: unknown tokenizer_class '{class}' (known: GPT2Tokenizer, Qwen2Tokenizer)",
        path.display()
    )]
    UnsupportedClass {
        /// `merges.txt`.
        path: PathBuf,
        /// `tokenizer_class` of `tokenizer_config.json`.
        class: String,
    },
    /// An entry of `added_tokens_decoder` is not a token.
    #[error("{}: added_tokens_decoder[{id:?}] is not valid: {reason}", path.display())]
    AddedToken {
        /// `tokenizer_config.json`.
        path: PathBuf,
        /// The entry's key.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `tokenizer.json`, or the vocabulary of a GGUF file, is inconsistent.
    #[error("invalid tokenizer in {origin}: {source}")]
    Invalid {
        /// The file.
        origin: String,
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
