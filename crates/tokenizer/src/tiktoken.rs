//! Tokenizers from tiktoken files: a line for every token, its bytes in base64
//! and its rank.
//!
//! A rank is a token's id and says when its pair is merged, so the file is all
//! that [`score_bpe`](crate::score_bpe) needs. How text is split and which
//! special tokens follow is the family's own matter.
//!
//! Upstream: `tiktoken`, and the tokenizer code in the repositories of Kimi K2,
//! Qwen, GLM-4-9b and Hunyuan.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustc_hash::FxHashSet;
use serde_json::{Map, Value, json};
use thiserror::Error;
use tokenizers::AddedToken;
use types::TokenId;

use crate::{
    SpecialTokens, byte_level,
    score_bpe::{Piece, Pieces, Symbols},
    split_patterns::isolated,
    text_encoder::{OwnEncoder, TextEncoder, Vocabulary},
};

mod family;

use family::Family;

/// More than four times the longest that is known.
const MAX_TOKEN_BYTES: usize = 1024;

/// What is wrong with a tiktoken file.
#[derive(Debug, Error)]
pub enum TiktokenError {
    /// Neither the file's name nor `tokenizer_class` is that of a known family.
    #[error("the split and the special tokens are known for {known}: set tokenizer_class")]
    Family {
        /// The families, comma separated.
        known: String,
    },
    /// A line is not a token and its rank.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Text with this byte could not be encoded.
    #[error("no token stands for byte 0x{byte:02X}")]
    MissingByte {
        /// The first byte that is missing.
        byte: u8,
    },
    /// The family names its special tokens in `tokenizer_config.json` only.
    #[error("{family} needs added_tokens_decoder in tokenizer_config.json")]
    NoSpecialTokens {
        /// The family's name.
        family: &'static str,
    },
    /// `add_bos_token` without a BOS token, or tokens around the text that are none.
    #[error("token '{token}' goes around every text but is not in the vocabulary")]
    Around {
        /// Its spelling, or its role.
        token: String,
    },
}

type Parsed<T> = std::result::Result<T, TiktokenError>;

/// What `tokenizer_config.json` says of the vocabulary.
pub(crate) struct Settings<'a> {
    pub(crate) class: Option<&'a str>,
    pub(crate) added: &'a [(TokenId, AddedToken)],
    pub(crate) roles: &'a SpecialTokens,
    pub(crate) add_bos: Option<bool>,
    pub(crate) add_eos: Option<bool>,
}

/// True for the first bytes of a tiktoken file; those of SentencePiece's binary
/// `tokenizer.model` are no base64.
pub(crate) fn is_one(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// The vocabulary in `bytes`, which are those of a file with the name `file`.
pub(crate) fn read(bytes: &[u8], file: &str, settings: &Settings<'_>) -> Parsed<Vocabulary> {
    let family =
        family::find(settings.class, file).map_err(|known| TiktokenError::Family { known })?;
    if family.needs_config && settings.added.is_empty() {
        return Err(TiktokenError::NoSpecialTokens { family: family.name });
    }
    let tokens = parse(bytes, family.ranks_by_line)?;
    let special = special_tokens(family, tokens.len() as TokenId, settings.added);
    let mut roles = SpecialTokens::default();
    for (role, text) in family.roles {
        roles.set(role, text);
    }
    let json = tokenizer_json(family, &tokens, &special).to_string();
    let (before, after) = around(family, &special, &roles, settings)?;
    let pieces: Pieces = tokens
        .into_iter()
        .zip(0..)
        .map(|(token, id)| (token.into_boxed_slice(), Piece { id, score: -(id as f32) }))
        .collect();
    let encoder = OwnEncoder { text: Box::new(RankBpe { pieces }), before, after };
    Ok(Vocabulary { json, roles, encoder: Some(encoder) })
}

/// The tokens in the order of their ranks.
fn parse(bytes: &[u8], ranks_by_line: bool) -> Parsed<Vec<Vec<u8>>> {
    let mut entries: Vec<(usize, usize, Vec<u8>)> = Vec::new();
    let mut seen = FxHashSet::default();
    for (text, line) in bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).zip(1..) {
        let invalid = |reason| TiktokenError::Line { line, reason };
        if text.is_empty() {
            continue;
        }
        let (token, rank) = parse_line(text).map_err(invalid)?;
        match seen.insert(token.clone()) {
            true if ranks_by_line => entries.push((entries.len(), line, token)),
            true => entries.push((rank, line, token)),
            false if ranks_by_line => {}
            false => return Err(invalid("the token is there twice")),
        }
    }
    if let Some(byte) = (0..=u8::MAX).find(|&byte| !seen.contains([byte].as_slice())) {
        return Err(TiktokenError::MissingByte { byte });
    }
    entries.sort_unstable();
    for (index, &(rank, line, _)) in entries.iter().enumerate() {
        if rank != index {
            let reason = match index.checked_sub(1).is_some_and(|before| entries[before].0 == rank)
            {
                true => "the rank is there twice",
                false => "a rank below this one is missing",
            };
            return Err(TiktokenError::Line { line, reason });
        }
    }
    Ok(entries.into_iter().map(|(_, _, token)| token).collect())
}

fn parse_line(text: &[u8]) -> std::result::Result<(Vec<u8>, usize), &'static str> {
    let mut fields = text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let (Some(token), Some(rank), None) = (fields.next(), fields.next(), fields.next()) else {
        return Err("not a token and a rank");
    };
    let token = STANDARD.decode(token).map_err(|_| "the token is not base64")?;
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err("the token is empty or too long");
    }
    let rank = std::str::from_utf8(rank).ok().and_then(|rank| rank.parse().ok());
    Ok((token, rank.ok_or("the rank is not a number")?))
}

/// The family's tokens from id `first` on, with the names and flags that
/// `tokenizer_config.json` gives some of them.
fn special_tokens(
    family: &Family,
    first: TokenId,
    added: &[(TokenId, AddedToken)],
) -> Vec<(TokenId, AddedToken)> {
    let named = |content: &str| added.iter().any(|(_, token)| token.content == content);
    let replaced = |id| added.iter().any(|&(other, _)| other == id);
    let own = (first..).zip((family.special_tokens)(first));
    let own = own.filter(|(id, content)| !replaced(*id) && !named(content));
    let own = own.map(|(id, content)| (id, AddedToken::from(content, true).normalized(false)));
    let mut all: Vec<_> = own.collect();
    all.extend(added.iter().filter(|(id, _)| *id >= first).cloned());
    all.sort_by_key(|(id, _)| *id);
    all
}

/// The vocabulary as `tokenizer.json` has it; its model does not encode.
fn tokenizer_json(family: &Family, tokens: &[Vec<u8>], special: &[(TokenId, AddedToken)]) -> Value {
    let alphabet = byte_level::alphabet();
    let spelt = |token: &Vec<u8>| token.iter().map(|&byte| alphabet[usize::from(byte)]).collect();
    let vocab = tokens.iter().map(spelt).zip(0 as TokenId..);
    let named = special.iter().map(|(id, token)| (token.content.clone(), *id));
    let vocab: Map<String, Value> =
        vocab.chain(named).map(|(token, id)| (token, json!(id))).collect();
    let added = special.iter().map(|(id, token)| {
        json!({"id": id, "content": token.content, "special": token.special,
            "single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip,
            "normalized": token.normalized})
    });
    json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": if family.nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": isolated(family.pattern),
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": ""},
    })
}

/// Ids that go before and after every text.
fn around(
    family: &Family,
    special: &[(TokenId, AddedToken)],
    roles: &SpecialTokens,
    settings: &Settings<'_>,
) -> Parsed<(Vec<TokenId>, Vec<TokenId>)> {
    let id = |text: &str| match special.iter().find(|(_, token)| token.content == text) {
        Some((id, _)) => Ok(*id),
        None => Err(TiktokenError::Around { token: text.to_owned() }),
    };
    let role = |role: &str| {
        settings.roles.get(role).or(roles.get(role)).map_or_else(
            || Err(TiktokenError::Around { token: role.to_owned() }),
            |text| Ok(vec![id(text)?]),
        )
    };
    let before = match settings.add_bos {
        Some(true) => role("bos_token")?,
        Some(false) => Vec::new(),
        None => family.before.iter().map(|text| id(text)).collect::<Parsed<_>>()?,
    };
    let after = if settings.add_eos == Some(true) { role("eos_token")? } else { Vec::new() };
    Ok((before, after))
}

/// Byte-pair encoding by rank.
struct RankBpe {
    pieces: Pieces,
}

impl TextEncoder for RankBpe {
    fn encode(&self, text: &str, _at_start: bool, ids: &mut Vec<TokenId>) {
        let text = text.as_bytes();
        // Also a token that no merges lead to.
        if let Some(piece) = self.pieces.get(text) {
            return ids.push(piece.id);
        }
        let mut symbols = Symbols::default();
        text.iter().for_each(|_| symbols.push(1, false));
        let left = symbols.merge(text, &self.pieces);
        ids.extend(left.into_iter().filter_map(|range| Some(self.pieces.get(&text[range])?.id)));
    }

    fn shrinks(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(test)]
mod tests;
