//! The most likely pieces of a text by a Unigram model (Kudo, 2018).

use std::ops::Range;

use types::TokenId;

use super::{
    model::{Model, PieceKind},
    prefix_table::PrefixTable,
};

/// How much less likely an unknown character is than the least likely piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Pieces with log likelihoods.
#[derive(Debug)]
pub(super) struct Unigram {
    table: PrefixTable,
    scores: Vec<Score>,
    unknown_score: f32,
}

#[derive(Debug, Clone, Copy)]
enum Score {
    /// The log likelihood.
    Of(f32),
    /// By its length in bytes, so that it goes before all others (their logarithms
    /// are negative).
    UserDefined,
}

/// The best way to a place in the text.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    start: usize,
    /// Of the piece that ends here; `None`: an unknown character.
    piece: Option<TokenId>,
}

impl Unigram {
    pub(super) fn new(model: &Model) -> Self {
        let normal = model.pieces.iter().filter(|piece| piece.kind == PieceKind::Normal);
        let least = normal.map(|piece| piece.score).fold(f32::MAX, f32::min);
        let usable = |kind| matches!(kind, PieceKind::Normal | PieceKind::UserDefined);
        let pieces = model.pieces.iter().zip(0..).filter(|(piece, _)| usable(piece.kind));
        Self {
            table: PrefixTable::new(pieces.map(|(piece, id)| (piece.text.as_str(), id))),
            scores: model
                .pieces
                .iter()
                .map(|piece| match piece.kind {
                    PieceKind::UserDefined => Score::UserDefined,
                    _ => Score::Of(piece.score),
                })
                .collect(),
            unknown_score: least - UNKNOWN_PENALTY,
        }
    }

    /// Byte ranges of `text` and their pieces. Sums are rounded to f32 as
    /// SentencePiece rounds them: which of two ways is better may hang on that.
    pub(super) fn encode(&self, text: &str) -> Vec<(Range<usize>, Option<TokenId>)> {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        for (start, c) in text.char_indices() {
            let so_far = best[start].map_or(0.0, |best| best.score);
            let mut is_known = false;
            for (len, id) in self.table.prefixes(&text.as_bytes()[start..]) {
                is_known |= len == c.len_utf8();
                improve(&mut best[start + len], so_far + self.score(id, len), start, Some(id));
            }
            if !is_known {
                let score = so_far + self.unknown_score;
                improve(&mut best[start + c.len_utf8()], score, start, None);
            }
        }
        let mut pieces = Vec::new();
        let mut end = text.len();
        while let Some(Best { start, piece, .. }) = best[end] {
            pieces.push((start..end, piece));
            end = start;
        }
        pieces.reverse();
        pieces
    }

    fn score(&self, id: TokenId, len: usize) -> f32 {
        match self.scores[id as usize] {
            Score::Of(score) => score,
            Score::UserDefined => (len as f64 * 0.1 - 0.1) as f32,
        }
    }
}

fn improve(best: &mut Option<Best>, score: f32, start: usize, piece: Option<TokenId>) {
    if best.is_none_or(|best| score > best.score) {
        *best = Some(Best { score, start, piece });
    }
}
