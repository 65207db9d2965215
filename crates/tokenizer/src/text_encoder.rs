//! Encoding by code of our own, for vocabularies that come without a
//! `tokenizer.json`.
//!
//! The tokenizers library still finds the added tokens, composes the text and
//! splits it; only what turns a piece of text into ids is ours. It follows the
//! program that the vocabulary was made with, where a conversion to the
//! library's models would only come near it.

use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};
use types::TokenId;

use crate::SpecialTokens;

/// Turns text into ids.
pub(crate) trait TextEncoder: Send + Sync {
    /// Appends the ids of `text`, which has no added tokens in it. `at_start`:
    /// nothing comes before it.
    fn encode(&self, text: &str, at_start: bool, ids: &mut Vec<TokenId>);

    /// How many bytes of text one byte of a token can stand for, at most;
    /// `None` if there is no limit.
    fn shrinks(&self) -> Option<usize>;
}

/// An encoder, and the tokens that the model wants around every text.
pub(crate) struct OwnEncoder {
    pub(crate) text: Box<dyn TextEncoder>,
    pub(crate) before: Vec<TokenId>,
    pub(crate) after: Vec<TokenId>,
}

impl OwnEncoder {
    /// Ids of `text`, added tokens included.
    ///
    /// # Errors
    /// Text that the pre-tokenizer's regular expression gives up on.
    pub(crate) fn encode(
        &self,
        library: &tokenizers::Tokenizer,
        text: &str,
        add_special_tokens: bool,
    ) -> tokenizers::Result<Vec<TokenId>> {
        let added = library.get_added_vocabulary();
        let mut pieces: PreTokenizedString =
            added.extract_and_normalize(library.get_normalizer(), text);
        if let Some(pre_tokenizer) = library.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        let mut ids = Vec::new();
        if add_special_tokens {
            ids.extend(&self.before);
        }
        for (text, (start, _), tokens) in
            pieces.get_splits(OffsetReferential::Original, OffsetType::Byte)
        {
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => self.text.encode(text, start == 0, &mut ids),
            }
        }
        if add_special_tokens {
            ids.extend(&self.after);
        }
        Ok(ids)
    }
}

/// A vocabulary, as it is read from a model folder.
pub(crate) struct Vocabulary {
    /// In the form of `tokenizer.json`.
    pub(crate) json: String,
    /// The tokens that have a role unless the folder says otherwise.
    pub(crate) roles: SpecialTokens,
    /// `None`: `json` says how to encode.
    pub(crate) encoder: Option<OwnEncoder>,
}
