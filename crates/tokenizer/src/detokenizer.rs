//! The bytes each token stands for.
//!
//! All decoders in use for language models come down to one table and a rule
//! for the beginning of the text: the text is the tokens' bytes in a row, read
//! as UTF-8. That makes decoding a token a table look-up and streaming exact.
//! Where a run of byte tokens is not UTF-8, the characters in it that are fine
//! survive (Hugging Face's `ByteFallback` turns every byte of the run into
//! U+FFFD, also those it has already shown to a reader of the stream).

use std::collections::HashMap;

use serde_json::Value;
use types::TokenId;

use crate::{Result, TokenizerError, byte_level};

/// How the text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leading {
    /// With the first token's bytes.
    Keep,
    /// Without up to so many spaces.
    StripSpaces(usize),
    /// Without any of the spaces of the first token.
    StripFirstToken,
    /// As the first token is spelt in the vocabulary.
    Spelt,
}

/// Bytes of every token of a vocabulary.
#[derive(Debug)]
pub(crate) struct Detokenizer {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[ends[id - 1]..ends[id]]`.
    ends: Vec<usize>,
    special: Vec<bool>,
    leading: Leading,
    /// What the spelling of a token that continues a word begins with (WordPiece), and
    /// which tokens those are.
    continuation: (String, Vec<bool>),
    /// Put between two tokens.
    joiner: &'static [u8],
    spells_all_bytes: bool,
}

impl Detokenizer {
    /// `decoder` is the entry of that name in `tokenizer.json`; `tokens` the
    /// `(text, is special)` of every id, `None` for ids that do not exist.
    pub(crate) fn new(decoder: &Value, tokens: &[Option<(String, bool)>]) -> Result<Self> {
        let rules = Rules::parse(decoder)
            .ok_or_else(|| TokenizerError::UnsupportedDecoder { decoder: decoder.to_string() })?;
        let mut table = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(tokens.len()),
            special: Vec::with_capacity(tokens.len()),
            leading: rules.leading,
            continuation: (rules.word_piece.prefix.clone(), Vec::new()),
            joiner: rules.joiner,
            spells_all_bytes: rules.byte_level || rules.byte_fallback,
        };
        let byte_of_char = rules.byte_level.then(byte_level::byte_of_char);
        for token in tokens {
            if let Some((text, _)) = token {
                rules.append_bytes(byte_of_char.as_ref(), text, &mut table.bytes);
            }
            if rules.leading == Leading::Spelt {
                let text = token.as_ref().map_or("", |(text, _)| text);
                table.continuation.1.push(text.starts_with(&rules.word_piece.prefix));
            }
            table.ends.push(table.bytes.len());
            table.special.push(token.as_ref().is_some_and(|(_, special)| *special));
        }
        Ok(table)
    }

    /// One more than the highest id.
    pub(crate) fn vocab_size(&self) -> usize {
        self.ends.len()
    }

    /// Empty for an id outside the vocabulary.
    pub(crate) fn token_bytes(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }

    pub(crate) fn is_special(&self, id: TokenId) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    pub(crate) fn leading(&self) -> Leading {
        self.leading
    }

    /// What a token's spelling in the vocabulary has in front of its bytes, if it
    /// continues a word.
    pub(crate) fn continuation_prefix(&self, id: TokenId) -> &str {
        let (prefix, continues) = &self.continuation;
        if continues.get(id as usize).copied().unwrap_or(false) { prefix } else { "" }
    }

    /// True if text outside the vocabulary is spelt byte by byte and not as
    /// one unknown token.
    pub(crate) fn spells_all_bytes(&self) -> bool {
        self.spells_all_bytes
    }

    pub(crate) fn joiner(&self) -> &'static [u8] {
        self.joiner
    }
}

/// A `decoder` entry, reduced to what it does to one token.
#[derive(Debug)]
struct Rules {
    byte_level: bool,
    byte_fallback: bool,
    replacements: Vec<(String, String)>,
    word_piece: WordPiece,
    leading: Leading,
    joiner: &'static [u8],
}

/// Words begin with a space, unless their token has the prefix.
#[derive(Debug, Default)]
struct WordPiece {
    prefix: String,
    cleanup: bool,
}

impl WordPiece {
    /// Spaces that English does not have.
    const CLEANUP: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];

    fn text(&self, token: &str) -> String {
        let spaced = match token.strip_prefix(&self.prefix) {
            Some(rest) => rest.to_owned(),
            None => format!(" {token}"),
        };
        match self.cleanup {
            true => Self::CLEANUP.iter().fold(spaced, |text, (from, to)| text.replace(from, to)),
            false => spaced,
        }
    }
}

impl Rules {
    /// `None` if a step is unknown, or comes where it means something else.
    fn parse(decoder: &Value) -> Option<Self> {
        let mut rules = Self {
            byte_level: false,
            byte_fallback: false,
            replacements: Vec::new(),
            word_piece: WordPiece::default(),
            leading: Leading::Keep,
            joiner: b"",
        };
        if decoder.is_null() {
            rules.joiner = b" ";
            return Some(rules);
        }
        let single = std::slice::from_ref(decoder);
        let steps = match decoder["type"].as_str()? {
            "Sequence" => decoder["decoders"].as_array()?,
            _ => single,
        };
        let mut fused = false;
        for step in steps {
            match step["type"].as_str()? {
                "ByteLevel" if rules.replacements.is_empty() => rules.byte_level = true,
                "ByteFallback" if !fused => rules.byte_fallback = true,
                "Fuse" => fused = true,
                "Replace" if !fused && !rules.byte_level => {
                    let from = step["pattern"]["String"].as_str().filter(|from| !from.is_empty());
                    rules.replacements.push((from?.into(), step["content"].as_str()?.into()));
                }
                "Strip" if fused && step["content"] == " " && step["stop"] == 0 => {
                    rules.leading = Leading::StripSpaces(step["start"].as_u64()?.try_into().ok()?);
                }
                "Metaspace" if steps.len() == 1 => {
                    rules.replacements.push((step["replacement"].as_str()?.into(), " ".into()));
                    if step["prepend_scheme"] != "never" {
                        rules.leading = Leading::StripFirstToken;
                    }
                }
                "WordPiece" if steps.len() == 1 => {
                    let prefix = step["prefix"].as_str().filter(|prefix| !prefix.is_empty())?;
                    let cleanup = step["cleanup"].as_bool()?;
                    rules.word_piece = WordPiece { prefix: prefix.to_owned(), cleanup };
                    rules.leading = Leading::Spelt;
                }
                _ => return None,
            }
        }
        Some(rules)
    }

    fn append_bytes(
        &self,
        byte_of_char: Option<&HashMap<char, u8>>,
        text: &str,
        out: &mut Vec<u8>,
    ) {
        let byte_level = |alphabet: &HashMap<char, u8>| {
            text.chars().map(|c| alphabet.get(&c).copied()).collect::<Option<Vec<u8>>>()
        };
        if let Some(bytes) = byte_of_char.and_then(byte_level) {
            return out.extend(bytes);
        }
        if self.leading == Leading::Spelt {
            return out.extend(self.word_piece.text(text).bytes());
        }
        match byte_token(text).filter(|_| self.byte_fallback) {
            Some(byte) => out.push(byte),
            None if self.replacements.is_empty() => out.extend(text.bytes()),
            None => {
                let replace = |text: String, (from, to): &(String, String)| text.replace(from, to);
                out.extend(self.replacements.iter().fold(text.to_owned(), replace).bytes());
            }
        }
    }
}

/// The byte that a token like `<0x0A>` stands for.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(decoder: Value, tokens: &[&str]) -> Result<Detokenizer> {
        let tokens: Vec<_> = tokens.iter().map(|&text| Some((text.to_owned(), false))).collect();
        Detokenizer::new(&decoder, &tokens)
    }

    #[test]
    fn byte_level_spells_every_byte() {
        let table = table(json!({"type": "ByteLevel"}), &["ĠÃ©", "<a b>", "日"]).unwrap();
        assert_eq!(table.token_bytes(0), " é".as_bytes());
        // Not in the alphabet: an added token, which stands for itself.
        assert_eq!(table.token_bytes(1), b"<a b>");
        assert_eq!(table.token_bytes(2), "日".as_bytes());
        assert_eq!(table.token_bytes(3), b"");
    }

    #[test]
    fn sentencepiece_spells_spaces_and_bytes() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let table = table(decoder, &["▁a▁", "<0xE6>", "<0xZZ>"]).unwrap();
        assert_eq!(table.token_bytes(0), b" a ");
        assert_eq!(table.token_bytes(1), [0xE6]);
        assert_eq!(table.token_bytes(2), b"<0xZZ>");
        assert_eq!(table.leading(), Leading::StripSpaces(1));
    }

    #[test]
    fn word_pieces_begin_with_a_space_or_continue() {
        let words = ["don", "##'t", ".", "'s", "##.", "n't"];
        let bytes = |cleanup: bool| {
            let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": cleanup});
            let table = table(decoder, &words).unwrap();
            assert_eq!((table.continuation_prefix(1), table.continuation_prefix(0)), ("##", ""));
            let text = |id| String::from_utf8(table.token_bytes(id).to_vec()).unwrap();
            (0..6).map(text).collect::<Vec<_>>()
        };
        assert_eq!(bytes(false), [" don", "'t", " .", " 's", ".", " n't"]);
        assert_eq!(bytes(true), [" don", "'t", ".", "'s", ".", "n't"]);
    }

    #[test]
    fn unknown_steps_are_refused_by_name() {
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        for decoder in [
            json!({"type": "WordPiece", "prefix": "", "cleanup": true}),
            json!({"type": "Sequence", "decoders": [strip, {"type": "Fuse"}]}),
            json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": " "}),
        ] {
            let error = table(decoder.clone(), &["a"]).unwrap_err();
            assert_eq!(error.to_string(), format!("unsupported tokenizer decoder {decoder}"));
        }
    }
}
