//! What a SentencePiece model says, as far as encoding needs it.
//!
//! The file is a protobuf message of which two dozen scalar fields matter, so a
//! reader of those is shorter than a schema and its generated code.

use rustc_hash::FxHashSet;
use types::TokenId;

use super::{
    Parsed, SentencePieceError,
    wire::{Field, fields},
};

const MAX_PIECE_BYTES: usize = 1024;

/// A model, checked as SentencePiece checks it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) trainer: Trainer,
    pub(super) normalizer: Normalizer,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    /// Never comes from text.
    Control,
    /// Found in the text before anything else.
    UserDefined,
    /// Helps to put others together, but is no token.
    Unused,
    Byte,
}

/// Settings of the training that say how to encode.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) algorithm: Algorithm,
    /// Text without a piece is spelt in bytes.
    pub(super) byte_fallback: bool,
    pub(super) unk_id: TokenId,
    pub(super) bos_id: Option<TokenId>,
    pub(super) eos_id: Option<TokenId>,
    pub(super) pad_id: Option<TokenId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

/// What happens to text before it is cut into pieces.
#[derive(Debug)]
pub(super) struct Normalizer {
    /// Empty: characters stay as they are.
    pub(super) chars_map: Vec<u8>,
    /// Text gets a space in front.
    pub(super) adds_dummy_prefix: bool,
    /// Spaces at the ends and after other spaces go.
    pub(super) removes_extra_whitespaces: bool,
    /// Spaces become U+2581.
    pub(super) escapes_whitespaces: bool,
}

impl Model {
    pub(super) fn parse(bytes: &[u8]) -> Parsed<Self> {
        let mut pieces = Vec::new();
        let mut seen = FxHashSet::default();
        let (mut trainer, mut normalizer): (&[u8], &[u8]) = (&[], &[]);
        for field in fields(bytes) {
            match field? {
                (1, Field::Bytes(message)) => {
                    let piece = Piece::parse(message, pieces.len())?;
                    if !seen.insert(piece.text.clone()) {
                        return Err(SentencePieceError::Piece { id: pieces.len() });
                    }
                    pieces.push(piece);
                }
                (2, Field::Bytes(message)) => trainer = message,
                (3, Field::Bytes(message)) => normalizer = message,
                (5, Field::Bytes(message)) if has_chars_map(message)? => {
                    return unsupported("a character map for decoding");
                }
                _ => {}
            }
        }
        if pieces.is_empty() {
            return Err(SentencePieceError::Empty);
        }
        let trainer = Trainer::parse(trainer, &pieces)?;
        Ok(Self { trainer, normalizer: Normalizer::parse(normalizer)?, pieces })
    }

    /// Ids of the byte pieces; `None` without byte fallback.
    pub(super) fn byte_ids(&self) -> Parsed<Option<[TokenId; 256]>> {
        if !self.trainer.byte_fallback {
            return Ok(None);
        }
        let mut ids = [None; 256];
        for (piece, id) in self.pieces.iter().zip(0..) {
            if piece.kind == PieceKind::Byte {
                let digits = piece.text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>'));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let byte = byte.ok_or(SentencePieceError::Piece { id: id as usize })?;
                ids[usize::from(byte)] = Some(id);
            }
        }
        let missing = ids.iter().position(Option::is_none);
        match missing {
            Some(byte) => Err(SentencePieceError::MissingByte { byte: byte as u8 }),
            None => Ok(Some(ids.map(Option::unwrap_or_default))),
        }
    }
}

impl Piece {
    fn parse(bytes: &[u8], id: usize) -> Parsed<Self> {
        let invalid = SentencePieceError::Piece { id };
        let (mut text, mut score, mut kind) = ("", 0.0, 1);
        for field in fields(bytes) {
            match field? {
                (1, Field::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                    Ok(piece) => text = piece,
                    Err(_) => return Err(invalid),
                },
                (2, Field::Fixed32(bits)) => score = f32::from_bits(bits),
                (3, Field::Varint(value)) => kind = value,
                _ => {}
            }
        }
        let kind = match kind {
            1 => PieceKind::Normal,
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => return Err(invalid),
        };
        if text.is_empty() || text.len() > MAX_PIECE_BYTES || !score.is_finite() {
            return Err(invalid);
        }
        // Adding makes a positive zero of a negative one: the two are equal.
        Ok(Self { text: text.to_owned(), score: score + 0.0, kind })
    }
}

impl Trainer {
    fn parse(bytes: &[u8], pieces: &[Piece]) -> Parsed<Self> {
        // The schema's defaults.
        let (mut algorithm, mut byte_fallback, mut suffix) = (1, false, false);
        let (mut bos, mut eos, mut pad) = (1, 2, -1);
        for field in fields(bytes) {
            let (number, Field::Varint(value)) = field? else { continue };
            match number {
                3 => algorithm = value,
                24 => suffix = value != 0,
                35 => byte_fallback = value != 0,
                41 => bos = value as i32,
                42 => eos = value as i32,
                43 => pad = value as i32,
                _ => {}
            }
        }
        let algorithm = match algorithm {
            1 => Algorithm::Unigram,
            2 => Algorithm::Bpe,
            _ => return unsupported("a word or character model"),
        };
        if suffix {
            return unsupported("treat_whitespace_as_suffix");
        }
        let mut unknown =
            pieces.iter().zip(0..).filter(|(piece, _)| piece.kind == PieceKind::Unknown);
        let (Some((_, unk_id)), None) = (unknown.next(), unknown.next()) else {
            return Err(SentencePieceError::Unknown);
        };
        let vocab_size = pieces.len();
        let id = |field, id: i32| match TokenId::try_from(id) {
            Err(_) => Ok(None),
            Ok(id) if (id as usize) < vocab_size => Ok(Some(id)),
            Ok(id) => Err(SentencePieceError::TokenId { field, id, vocab_size }),
        };
        Ok(Self {
            algorithm,
            byte_fallback,
            unk_id,
            bos_id: id("bos_id", bos)?,
            eos_id: id("eos_id", eos)?,
            pad_id: id("pad_id", pad)?,
        })
    }
}

impl Normalizer {
    fn parse(bytes: &[u8]) -> Parsed<Self> {
        let mut normalizer = Self {
            chars_map: Vec::new(),
            adds_dummy_prefix: true,
            removes_extra_whitespaces: true,
            escapes_whitespaces: true,
        };
        for field in fields(bytes) {
            match field? {
                (2, Field::Bytes(map)) => normalizer.chars_map = map.to_owned(),
                (3, Field::Varint(value)) => normalizer.adds_dummy_prefix = value != 0,
                (4, Field::Varint(value)) => normalizer.removes_extra_whitespaces = value != 0,
                (5, Field::Varint(value)) => normalizer.escapes_whitespaces = value != 0,
                _ => {}
            }
        }
        Ok(normalizer)
    }
}

fn has_chars_map(bytes: &[u8]) -> Parsed<bool> {
    Ok(!Normalizer::parse(bytes)?.chars_map.is_empty())
}

fn unsupported<T>(feature: &'static str) -> Parsed<T> {
    Err(SentencePieceError::Unsupported { feature })
}
