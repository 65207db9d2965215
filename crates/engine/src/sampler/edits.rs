//! What requests change of their logits before a token is chosen: penalties, then
//! `logit_bias`, then tokens that must not come yet.
//!
//! Rows that change nothing are not touched: their values stay the same to the last bit,
//! whatever the rows beside them ask for.
//!
//! Upstream: `apply_logits_bias` of `sglang/srt/sampling/sampling_batch_info.py`.

use mlx::{Array, Dtype, Result};
use scheduler::{RowPenalties, SamplingRow};

/// `logits` `[num_rows, vocab]` as `rows` want them, in f32 where a row adds something.
/// `previous` are the tokens of the batch launched before, `[num_sampled]` int32. Builds
/// the graph only.
///
/// # Errors
/// Those of MLX.
pub(crate) fn edit(
    logits: &Array,
    rows: &[&SamplingRow],
    previous: Option<&Array>,
) -> Result<Array> {
    let logits = penalize(logits, rows, previous)?;
    let logits = add_bias(logits, rows)?;
    suppress(logits, rows)
}

fn penalize(logits: &Array, rows: &[&SamplingRow], previous: Option<&Array>) -> Result<Array> {
    let penalized = |(row, params): (usize, &&SamplingRow)| {
        params.penalties.clone().map(|penalties| (row as i32, penalties))
    };
    let (places, penalties): (Vec<i32>, Vec<RowPenalties>) =
        rows.iter().enumerate().filter_map(penalized).unzip();
    if places.is_empty() {
        return Ok(logits.clone());
    }
    let column = |value: fn(&RowPenalties) -> f32| {
        let values: Vec<f32> = penalties.iter().map(value).collect();
        Array::from_slice(&values, &[values.len(), 1])
    };
    let zero = Array::scalar(0.0_f32)?;
    let counts = counts(&penalties, logits.dim(1), previous)?;
    let occurs = zero.less(&counts)?;
    let places = Array::from_slice(&places, &[places.len()])?;
    let before = logits.take(&places, 0)?.astype(Dtype::Float32)?;

    let frequency = counts.multiply(&column(|row| row.penalties.frequency)?)?;
    let presence = occurs.where_(&column(|row| row.penalties.presence)?, &zero)?;
    let added = before.subtract(&frequency)?.subtract(&presence)?;
    let repetition = column(|row| row.penalties.repetition)?;
    let scaled =
        added.less(&zero)?.where_(&added.multiply(&repetition)?, &added.divide(&repetition)?)?;
    logits.astype(Dtype::Float32)?.put_rows(&places, &occurs.where_(&scaled, &added)?)
}

/// How often each token occurs in the completions, `[penalties.len(), vocab]` f32.
fn counts(penalties: &[RowPenalties], vocab: usize, previous: Option<&Array>) -> Result<Array> {
    let known = penalties.iter().enumerate().flat_map(|(row, known)| {
        known.counts.iter().map(move |&(id, count)| (row * vocab + id as usize, count as f32))
    });
    let (places, values): (Vec<i32>, Vec<f32>) =
        known.map(|(place, count)| (place as i32, count)).unzip();
    let mut counts = Array::zeros(&[penalties.len() * vocab], Dtype::Float32)?;
    if !places.is_empty() {
        let places = Array::from_slice(&places, &[places.len()])?;
        counts = counts.put_rows(&places, &Array::from_slice(&values, &[values.len()])?)?;
    }
    let pending = penalties.iter().enumerate().filter_map(|(row, known)| {
        known.pending.map(|pending| ((row * vocab) as i32, pending as i32))
    });
    let (starts, sampled): (Vec<i32>, Vec<i32>) = pending.unzip();
    if let Some(previous) = previous.filter(|_| !sampled.is_empty()) {
        let tokens = previous.take(&Array::from_slice(&sampled, &[sampled.len()])?, 0)?;
        let places = tokens.add(&Array::from_slice(&starts, &[starts.len()])?)?;
        let one_more = counts.take(&places, 0)?.add(&Array::scalar(1.0_f32)?)?;
        counts = counts.put_rows(&places, &one_more)?;
    }
    counts.reshape(&[penalties.len(), vocab])
}

fn add_bias(logits: Array, rows: &[&SamplingRow]) -> Result<Array> {
    let vocab = logits.dim(1);
    let entries = rows.iter().enumerate().flat_map(|(row, params)| {
        let entries = params.logit_bias.as_deref().unwrap_or_default().iter();
        entries.map(move |&(id, bias)| ((row * vocab + id as usize) as i32, bias))
    });
    let (places, biases): (Vec<i32>, Vec<f32>) = entries.unzip();
    if places.is_empty() {
        return Ok(logits);
    }
    let flat = logits.astype(Dtype::Float32)?.reshape(&[logits.size()])?;
    let places = Array::from_slice(&places, &[places.len()])?;
    let biased = flat.take(&places, 0)?.add(&Array::from_slice(&biases, &[biases.len()])?)?;
    flat.put_rows(&places, &biased)?.reshape(&[logits.dim(0), vocab])
}

/// `logits` with the suppressed tokens out of reach.
fn suppress(logits: Array, rows: &[&SamplingRow]) -> Result<Array> {
    let vocab = logits.dim(1);
    let places: Vec<i32> = rows
        .iter()
        .enumerate()
        .flat_map(|(row, params)| {
            let start = row * vocab;
            let ids = params.suppress.as_deref().unwrap_or_default().iter();
            ids.filter(move |&&id| (id as usize) < vocab)
                .map(move |&id| (start + id as usize) as i32)
        })
        .collect();
    if places.is_empty() {
        return Ok(logits);
    }
    let never = Array::full(&[places.len()], f32::NEG_INFINITY, logits.dtype())?;
    logits
        .reshape(&[logits.size()])?
        .put_rows(&Array::from_slice(&places, &[places.len()])?, &never)?
        .reshape(&[logits.dim(0), vocab])
}
