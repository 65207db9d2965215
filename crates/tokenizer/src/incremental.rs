//! Text from tokens as they arrive.
//!
//! A character is given out with its last byte. Bytes that can no longer
//! become a character are given out as U+FFFD at once, so at most three bytes
//! wait and a token costs the same however long the text is.
//!
//! Upstream: `sglang/srt/managers/detokenizer_manager.py`.

use types::TokenId;

use crate::{Tokenizer, detokenizer::Leading};

/// Tokens of the prompt that decide how the first generated token is spelt.
const PROMPT_TAIL: usize = 5;

/// Streaming form of [`Tokenizer::decode`]: the pieces, in a row, are the text
/// that a single call gives for all tokens.
#[derive(Debug, Clone)]
pub struct IncrementalDecoder {
    tokenizer: Tokenizer,
    skip_special_tokens: bool,
    leading: Leading,
    is_first_token: bool,
    /// Bytes of an unfinished character.
    pending: Vec<u8>,
    text: String,
}

impl IncrementalDecoder {
    /// For a text of its own. `skip_special_tokens` leaves out tokens for which
    /// [`Tokenizer::is_special`] holds.
    pub fn new(tokenizer: &Tokenizer, skip_special_tokens: bool) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            skip_special_tokens,
            leading: tokenizer.detokenizer().leading(),
            is_first_token: true,
            pending: Vec::new(),
            text: String::new(),
        }
    }

    /// For a text that continues a prompt: a word after the prompt keeps the
    /// space in front of it, where a text of its own would lose it.
    pub fn after_prompt(
        tokenizer: &Tokenizer,
        skip_special_tokens: bool,
        prompt: &[TokenId],
    ) -> Self {
        let mut decoder = Self::new(tokenizer, skip_special_tokens);
        decoder.push(&prompt[prompt.len().saturating_sub(PROMPT_TAIL)..]);
        decoder.flush();
        decoder
    }

    /// Takes the next tokens and returns the text that they complete. Ids
    /// outside the vocabulary stand for nothing.
    pub fn push(&mut self, ids: &[TokenId]) -> &str {
        self.text.clear();
        for &id in ids {
            self.push_bytes(id);
        }
        self.take_characters();
        &self.text
    }

    /// The end of the text: an unfinished character comes out as U+FFFD.
    pub fn flush(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }

    fn push_bytes(&mut self, id: TokenId) {
        let table = self.tokenizer.detokenizer();
        let unknown = id as usize >= table.vocab_size();
        if unknown || (self.skip_special_tokens && table.is_special(id)) {
            return;
        }
        let mut bytes = table.token_bytes(id);
        if !self.is_first_token {
            self.pending.extend(table.joiner());
        }
        match &mut self.leading {
            Leading::Keep => {}
            Leading::StripSpaces(left) => {
                while let ([b' ', rest @ ..], 1..) = (bytes, *left) {
                    (bytes, *left) = (rest, *left - 1);
                }
                if !bytes.is_empty() {
                    self.leading = Leading::Keep;
                }
            }
            Leading::Spelt => {
                self.leading = Leading::Keep;
                self.pending.extend(table.continuation_prefix(id).bytes());
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
            Leading::StripFirstToken => {
                self.leading = Leading::Keep;
                self.is_first_token = false;
                return self.pending.extend(bytes.iter().filter(|&&byte| byte != b' '));
            }
        }
        self.is_first_token = false;
        self.pending.extend(bytes);
    }

    /// Moves what is decided from `pending` to `text`.
    fn take_characters(&mut self) {
        let mut rest = self.pending.as_slice();
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            self.text.push_str(&String::from_utf8_lossy(valid));
            rest = invalid;
            let Some(len) = error.error_len() else { break };
            self.text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[len..];
        }
        if let Ok(text) = std::str::from_utf8(rest) {
            self.text.push_str(text);
            rest = &[];
        }
        let taken = self.pending.len() - rest.len();
        self.pending.drain(..taken);
    }
}

#[cfg(test)]
mod tests;
