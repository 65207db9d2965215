//! The vocabulary as grammars see it: the bytes of each token, and those that end a
//! completion.

use tokenizer::Tokenizer;
use toktrie::{TokRxInfo, TokTrie};
use types::TokenId;

use crate::VocabularyError;

const WORD_BITS: usize = u32::BITS as usize;

/// Bytes of every token of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Vec<Token>,
    end: Vec<TokenId>,
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// Text, or a part of a character.
    Bytes(Vec<u8>),
    /// A mark with this name.
    Special(String),
    /// Nothing: the model has an id that the tokenizer has not.
    Unused,
}

impl Vocabulary {
    /// Of a model whose logits are for `vocab_size` tokens, and whose completions `end`
    /// with one of these.
    ///
    /// # Errors
    /// A tokenizer whose text is not that of its tokens in a row; no token to end with.
    pub fn new(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        end: &[TokenId],
    ) -> Result<Self, VocabularyError> {
        if !tokenizer.is_there() {
            return Err(VocabularyError::NoTokenizer);
        }
        if tokenizer.joins_tokens() {
            return Err(VocabularyError::Joined);
        }
        let end: Vec<_> = end.iter().copied().filter(|&id| (id as usize) < vocab_size).collect();
        if end.is_empty() {
            return Err(VocabularyError::NoEnd);
        }
        let token = |id| match tokenizer.id_to_token(id) {
            Some(name) if tokenizer.is_special(id) || end.contains(&id) => Token::Special(name),
            None => Token::Unused,
            Some(_) => match tokenizer.token_bytes(id) {
                [] => Token::Unused,
                bytes => Token::Bytes(bytes.to_vec()),
            },
        };
        let tokens = (0..vocab_size as TokenId).map(token).collect();
        Ok(Self { tokens, end })
    }

    /// By id.
    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The text of a token; empty if it has none.
    pub(crate) fn bytes(&self, token: TokenId) -> &[u8] {
        match self.tokens.get(token as usize) {
            Some(Token::Bytes(bytes)) => bytes,
            Some(Token::Special(_) | Token::Unused) | None => &[],
        }
    }

    /// All tokens by their text. Special ones stand under their names, after a byte that is
    /// in no text: no expression matches these.
    pub(crate) fn trie(&self) -> TokTrie {
        let bytes = |token: &Token| match token {
            Token::Special(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
            Token::Bytes(bytes) if bytes[0] == TokTrie::SPECIAL_TOKEN_MARKER => Vec::new(),
            Token::Bytes(bytes) => bytes.clone(),
            Token::Unused => Vec::new(),
        };
        let words: Vec<Vec<u8>> = self.tokens.iter().map(bytes).collect();
        let info = TokRxInfo::new(words.len() as u32, self.end[0]);
        TokTrie::from(&info, &words).with_eos_tokens(&self.end)
    }

    /// Those that end a completion; at least one.
    pub(crate) fn end(&self) -> &[TokenId] {
        &self.end
    }

    pub(crate) fn is_end(&self, token: TokenId) -> bool {
        self.end.contains(&token)
    }

    /// Words of a mask.
    pub(crate) fn mask_words(&self) -> usize {
        self.tokens.len().div_ceil(WORD_BITS)
    }
}
