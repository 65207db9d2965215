//! Tokens that a grammar does not allow are put out of reach.
//!
//! Upstream: `apply_vocab_mask` in `sglang/srt/constrained/xgrammar_backend.py`.

use mlx::{Array, Dtype, Result};
use scheduler::RowMask;

const WORD_BITS: usize = 32;

/// `logits` `[num_rows, vocab]`, negative infinity where the row's mask has no bit. Rows
/// without a mask stay as they are. Builds the graph only.
///
/// # Errors
/// Those of MLX; among them a mask with fewer words than the vocabulary needs.
pub(crate) fn restrict(logits: Array, masks: &[RowMask]) -> Result<Array> {
    if masks.is_empty() {
        return Ok(logits);
    }
    let allowed = unpack(masks, logits.dim(1))?;
    let never = Array::full(&[1], f32::NEG_INFINITY, logits.dtype())?;
    let is_whole = masks.len() == logits.dim(0)
        && masks.iter().enumerate().all(|(row, mask)| mask.sampled_row == row);
    if is_whole {
        return allowed.where_(&logits, &never);
    }
    let places: Vec<i32> = masks.iter().map(|mask| mask.sampled_row as i32).collect();
    let places = Array::from_slice(&places, &[places.len()])?;
    let masked = allowed.where_(&logits.take(&places, 0)?, &never)?;
    logits.put_rows(&places, &masked)
}

/// `[masks.len(), vocab]` bool.
fn unpack(masks: &[RowMask], vocab: usize) -> Result<Array> {
    let num_words = vocab.div_ceil(WORD_BITS);
    let mut words: Vec<u32> = Vec::with_capacity(masks.len() * num_words);
    for mask in masks {
        words.extend_from_slice(&mask.words[..num_words.min(mask.words.len())]);
    }
    let words = Array::from_slice(&words, &[masks.len(), num_words, 1])?;
    let bits: Vec<u32> = (0..WORD_BITS).map(|bit| 1 << bit).collect();
    let bits = words.bitwise_and(&Array::from_slice(&bits, &[1, 1, WORD_BITS])?)?;
    let bits = bits.reshape(&[masks.len(), num_words * WORD_BITS])?;
    let bits = match num_words * WORD_BITS == vocab {
        true => bits,
        false => bits.slice(&[0, 0], &[masks.len() as i32, vocab as i32], &[1, 1])?,
    };
    bits.astype(Dtype::Bool)
}
