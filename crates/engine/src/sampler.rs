//! Chooses the next token of every row, on the device.
//!
//! One batch mixes greedy and sampled rows. The order is SGLang's: temperature
//! first, then `top_k`, `top_p` of what is left (renormalised), then `min_p`
//! relative to the most likely token. A draw is an exponential race: the token
//! with the least `E / p` wins, where `E` is exponential noise that depends on
//! (seed, token index, token id) only. So neither the batch around a row nor the order
//! of its candidates changes what a seed gives, and there is no generator state.
//!
//! Upstream: `sglang/srt/layers/sampler.py`.

mod edits;
mod logprobs;
mod masks;

use mlx::{Array, Dtype, Result};
use scheduler::SamplingRow;
use types::{TOP_K_ALL, splitmix64};

pub(crate) use edits::edit;
pub(crate) use logprobs::PositionLogprobs;
pub(crate) use masks::restrict;

fn is_greedy(row: &SamplingRow) -> bool {
    row.temperature == 0.0
}

fn is_filtered(row: &SamplingRow) -> bool {
    row.top_k < TOP_K_ALL || row.top_p < 1.0 || row.min_p > 0.0
}

/// Two words that nothing but seed and token index decide.
fn key(row: &SamplingRow) -> [u32; 2] {
    let key = splitmix64(splitmix64(row.seed).wrapping_add(row.token_index as u64));
    [key as u32, (key >> 32) as u32]
}

/// One token per row of `logits` `[num_rows, vocab]`, as `[num_rows]` int32. What requests
/// change of their logits is done before, by [`edit`].
/// Rows beyond `rows` pad the batch; what they give means nothing. Builds the
/// graph only.
///
/// # Errors
/// Those of MLX.
///
/// # Panics
/// If there are more `rows` than logits.
pub(crate) fn sample(logits: &Array, rows: &[&SamplingRow]) -> Result<Array> {
    let num_rows = logits.dim(0);
    assert!(num_rows >= rows.len(), "logits for every row");
    let greedy = logits.argmax(-1, false)?.astype(Dtype::Int32)?;
    let mut source: Vec<i32> = (0..num_rows as i32).collect();
    let mut parts = vec![greedy];
    let mut offset = num_rows;
    for filtered in [false, true] {
        let group: Vec<usize> = (0..rows.len())
            .filter(|&row| !is_greedy(rows[row]) && is_filtered(rows[row]) == filtered)
            .collect();
        if group.is_empty() {
            continue;
        }
        parts.push(draw(logits, rows, &group, filtered)?);
        for (place, &row) in group.iter().enumerate() {
            source[row] = (offset + place) as i32;
        }
        offset += group.len();
    }
    if parts.len() == 1 {
        return Ok(parts.remove(0));
    }
    let all = Array::concatenate(&parts.iter().collect::<Vec<_>>(), 0)?;
    all.take(&Array::from_slice(&source, &[num_rows])?, 0)
}

/// Draws for the rows of `group`; `[group.len()]` int32.
fn draw(logits: &Array, rows: &[&SamplingRow], group: &[usize], filtered: bool) -> Result<Array> {
    let column = |value: fn(&SamplingRow) -> f32| {
        let values: Vec<f32> = group.iter().map(|&row| value(rows[row])).collect();
        Array::from_slice(&values, &[values.len(), 1])
    };
    let chosen: Vec<i32> = group.iter().map(|&row| row as i32).collect();
    let logits = logits
        .take(&Array::from_slice(&chosen, &[chosen.len()])?, 0)?
        .astype(Dtype::Float32)?
        .divide(&column(|row| row.temperature)?)?;
    let keys: Vec<[u32; 2]> = group.iter().map(|&row| key(rows[row])).collect();

    if !filtered {
        let vocab = logits.dim(1);
        let tokens = Array::arange(0.0, vocab as f64, 1.0, Dtype::Uint32)?.reshape(&[1, vocab])?;
        let winner = logits.subtract(&log_noise(&tokens, &keys)?)?.argmax(-1, false)?;
        return winner.astype(Dtype::Int32);
    }

    let order = logits.negative()?.argsort(-1)?;
    let sorted = logits.take_along_axis(&order, -1)?;
    let probs = sorted.softmax(-1, true)?;
    let top_k: Vec<u32> = group.iter().map(|&row| rows[row].top_k).collect();
    let keep = keep(
        &probs,
        &Array::from_slice(&top_k, &[top_k.len(), 1])?,
        &column(|row| row.top_p)?,
        &column(|row| row.min_p)?,
    )?;
    let race = sorted.subtract(&log_noise(&order, &keys)?)?;
    let race = keep.where_(&race, &Array::scalar(f32::NEG_INFINITY)?)?;
    let winner = race.argmax(-1, true)?;
    order.take_along_axis(&winner, -1)?.reshape(&[group.len()])?.astype(Dtype::Int32)
}

/// Which places of `probs` `[rows, vocab]`, most likely first, pass all three
/// filters. The first place always does.
fn keep(probs: &Array, top_k: &Array, top_p: &Array, min_p: &Array) -> Result<Array> {
    let vocab = probs.dim(1);
    let rank = Array::arange(0.0, vocab as f64, 1.0, Dtype::Uint32)?.reshape(&[1, vocab])?;
    let in_top_k = rank.less(top_k)?;
    let probs_k = in_top_k.where_(probs, &Array::scalar(0.0_f32)?)?;
    let total = probs_k.sum(&[-1], true)?;
    let before = probs_k.cumsum(-1, false, true)?.subtract(&probs_k)?;
    let in_top_p = before.less_equal(&total.multiply(top_p)?)?;
    let most_likely = probs.slice(&[0, 0], &[probs.dim(0) as i32, 1], &[1, 1])?;
    let over_min_p = probs.greater_equal(&most_likely.multiply(min_p)?)?;
    in_top_k.logical_and(&in_top_p)?.logical_and(&over_min_p)
}

/// Logarithm of exponential noise for each of `tokens` (uint32, `[rows or 1, n]`)
/// under each row's key; `[rows, n]` f32.
///
/// The uniform value comes from all 32 bits of a hash, so that small ones, which
/// win races, keep their full precision.
fn log_noise(tokens: &Array, keys: &[[u32; 2]]) -> Result<Array> {
    let column = |word: usize| {
        let words: Vec<u32> = keys.iter().map(|key| key[word]).collect();
        Array::from_slice(&words, &[words.len(), 1])
    };
    let hash = mix(&tokens.multiply(&Array::scalar(0x9e37_79b1_u32)?)?.add(&column(0)?)?)?;
    let hash = mix(&hash.bitwise_xor(&column(1)?)?)?;
    let uniform = hash
        .astype(Dtype::Float32)?
        .add(&Array::scalar(0.5_f32)?)?
        .multiply(&Array::scalar(1.0_f32 / 4_294_967_296.0)?)?;
    uniform.negative()?.log1p()?.negative()?.log()
}

/// A 32-bit finaliser: every input bit changes every output bit.
fn mix(x: &Array) -> Result<Array> {
    let shifted = |x: &Array, bits: u32| x.bitwise_xor(&x.right_shift(&Array::scalar(bits)?)?);
    let x = shifted(x, 16)?.multiply(&Array::scalar(0x7feb_352d_u32)?)?;
    let x = shifted(&x, 15)?.multiply(&Array::scalar(0x846c_a68b_u32)?)?;
    shifted(&x, 16)
}

#[cfg(test)]
mod tests;
