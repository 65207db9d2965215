//! Text to ids, as SentencePiece's own processor does it.

use std::ops::Range;

use types::TokenId;

use super::{
    Parsed, SentencePieceError,
    model::{Algorithm, Model, PieceKind},
    normalizer::Normalizer,
    prefix_table::PrefixTable,
    unigram::Unigram,
};
use crate::{
    score_bpe::{Piece, Pieces, Symbols},
    text_encoder::TextEncoder,
};

/// Which texts between added tokens get the space in front that the model was
/// trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrefixSpace {
    /// All, as if each were a text of its own.
    Always,
    /// Only what begins the whole text, and not with a space.
    First,
    Never,
}

#[derive(Debug)]
pub(super) struct Encoder {
    normalizer: Normalizer,
    cutter: Cutter,
    prefix_space: PrefixSpace,
    unk_id: TokenId,
    byte_ids: Option<[TokenId; 256]>,
}

#[derive(Debug)]
enum Cutter {
    Bpe(Pieces),
    Unigram(Unigram),
}

impl Encoder {
    pub(super) fn new(model: &Model, prefix_space: PrefixSpace) -> Parsed<Self> {
        let cutter = match model.trainer.algorithm {
            Algorithm::Unigram => Cutter::Unigram(Unigram::new(model)),
            Algorithm::Bpe => Cutter::Bpe(bpe_pieces(model)?),
        };
        let all = model.pieces.iter().zip(0..);
        let user_defined = all.filter(|(piece, _)| piece.kind == PieceKind::UserDefined);
        let user_defined = PrefixTable::new(user_defined.map(|(piece, id)| (&*piece.text, id)));
        Ok(Self {
            normalizer: Normalizer::new(&model.normalizer, user_defined)?,
            cutter,
            prefix_space,
            unk_id: model.trainer.unk_id,
            byte_ids: model.byte_ids()?,
        })
    }

    fn cut_bpe(&self, text: &str, pieces: &Pieces) -> Vec<(Range<usize>, Option<TokenId>)> {
        let mut symbols = Symbols::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let user_defined = self.normalizer.user_defined_prefix(rest);
            let len = user_defined.unwrap_or(c.len_utf8());
            symbols.push(len, user_defined.is_some());
            rest = &rest[len..];
        }
        let bytes = text.as_bytes();
        let id = |range: &Range<usize>| pieces.get(&bytes[range.clone()]).map(|piece| piece.id);
        let left = symbols.merge(bytes, pieces);
        left.into_iter().map(|range| (range.clone(), id(&range))).collect()
    }
}

impl TextEncoder for Encoder {
    fn encode(&self, text: &str, at_start: bool, ids: &mut Vec<TokenId>) {
        let may_add_prefix = match self.prefix_space {
            PrefixSpace::Always => true,
            PrefixSpace::First => at_start && !text.starts_with([' ', '▁']),
            PrefixSpace::Never => false,
        };
        let text = self.normalizer.normalize(text, may_add_prefix);
        let pieces = match &self.cutter {
            Cutter::Bpe(pieces) => self.cut_bpe(&text, pieces),
            Cutter::Unigram(unigram) => unigram.encode(&text),
        };
        let mut after_unknown = false;
        for (range, id) in pieces {
            match (id, &self.byte_ids) {
                (Some(id), _) => ids.push(id),
                (None, Some(byte_ids)) => {
                    let bytes = text.as_bytes()[range].iter();
                    ids.extend(bytes.map(|&byte| byte_ids[usize::from(byte)]));
                }
                // A run of unknown characters is one unknown token.
                (None, None) if after_unknown => {}
                (None, None) => ids.push(self.unk_id),
            }
            after_unknown = id.is_none();
        }
    }

    fn shrinks(&self) -> Option<usize> {
        self.normalizer.shrinks()
    }
}

fn bpe_pieces(model: &Model) -> Parsed<Pieces> {
    let mut pieces = Pieces::default();
    for (piece, id) in model.pieces.iter().zip(0..) {
        match piece.kind {
            PieceKind::Normal | PieceKind::UserDefined => {
                let entry = Piece { id, score: piece.score };
                pieces.insert(piece.text.as_bytes().into(), entry);
            }
            PieceKind::Unused => {
                return Err(SentencePieceError::Unsupported { feature: "an unused BPE piece" });
            }
            PieceKind::Unknown | PieceKind::Control | PieceKind::Byte => {}
        }
    }
    Ok(pieces)
}
