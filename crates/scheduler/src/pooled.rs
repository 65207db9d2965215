//! The vector of a prompt, put together from the pieces that it is prefilled in.
//!
//! Upstream: `sglang/srt/layers/pooler.py`, which wants a prompt in one piece unless the
//! last token is enough.

use std::ops::Range;

use types::Pooling;

/// What is known so far.
#[derive(Debug)]
pub(crate) struct PooledSum {
    pooling: Pooling,
    /// Positions that are read.
    len: usize,
    sum: Vec<f32>,
}

impl PooledSum {
    pub(crate) fn new(pooling: Pooling) -> Self {
        Self { pooling, len: 0, sum: Vec::new() }
    }

    /// Whether nothing but the prompt's last token is looked at.
    pub(crate) fn wants_last_only(&self) -> bool {
        self.pooling == Pooling::Last
    }

    /// Which tokens of a piece of a prompt of `total` tokens are wanted, counted from the
    /// piece's first.
    pub(crate) fn wanted(&self, piece: &Range<usize>, total: usize) -> Option<Range<usize>> {
        let wanted = match self.pooling {
            Pooling::Last => total - 1..total,
            Pooling::First => 0..1,
            Pooling::Mean => 0..total,
        };
        let (start, end) = (wanted.start.max(piece.start), wanted.end.min(piece.end));
        (start < end).then(|| start - piece.start..end - piece.start)
    }

    /// Takes the sum over what was wanted of a piece. A request that was retracted begins
    /// again at its first token.
    pub(crate) fn push(&mut self, piece: &Range<usize>, sum: Vec<f32>) {
        if self.pooling != Pooling::Mean || piece.start == 0 {
            self.sum = sum;
        } else {
            debug_assert_eq!(piece.start, self.len, "pieces follow each other");
            self.sum.iter_mut().zip(sum).for_each(|(total, part)| *total += part);
        }
        self.len = piece.end;
    }

    /// The vector, once the whole prompt is read.
    pub(crate) fn finish(self) -> Vec<f32> {
        match self.pooling {
            Pooling::Mean => self.sum.iter().map(|sum| sum / self.len as f32).collect(),
            Pooling::Last | Pooling::First => self.sum,
        }
    }
}
