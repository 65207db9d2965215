//! Text in, token ids out, and back: everything between a prompt and the
//! vocabulary that needs no tensor.
//!
//! [`Tokenizer`] encodes and decodes, [`IncrementalDecoder`] and
//! [`StopChecker`] do the same for text that arrives token by token, and
//! [`ChatTemplate`] turns messages into a prompt.
//!
//! Upstream: `sglang/srt/managers/{tokenizer_manager,detokenizer_manager}.py`.

mod byte_level;
mod chat_template;
mod detokenizer;
mod eos;
mod error;
mod gguf;
mod incremental;
mod length_bound;
mod merges_file;
mod post_processor;
mod score_bpe;
mod sentencepiece;
mod special_tokens;
mod split_patterns;
mod stop;
#[cfg(test)]
mod testing;
mod text_encoder;
mod tiktoken;
mod tokenizer;
mod vocab_files;
mod word_piece;

pub use chat_template::{ChatTemplate, ChatTemplateError, ContentFormat, RenderOptions};
pub use eos::eos_token_ids;
pub use error::{Result, TokenizerError};
pub use gguf::GgufVocab;
pub use incremental::IncrementalDecoder;
pub use sentencepiece::SentencePieceError;
pub use special_tokens::SpecialTokens;
pub use stop::{StopChecker, StopOutput};
pub use tiktoken::TiktokenError;
pub use tokenizer::Tokenizer;
