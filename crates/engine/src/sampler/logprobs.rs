//! Log-probabilities of tokens, and the most likely ones.
//!
//! Upstream: `sglang/srt/layers/logits_processor.py`, `compute_logprobs_only` of
//! `sglang/srt/layers/sampler.py`.

use std::sync::Arc;

use mlx::{Array, Dtype, Result};
use scheduler::SamplingRow;
use types::{LogprobParams, TokenId, TokenLogprobs};

/// Positions computed at once: each takes several vectors as long as the vocabulary.
const PIECE: usize = 64;

/// Log-probabilities on their way, at some positions.
pub(crate) struct PositionLogprobs {
    params: Vec<Arc<LogprobParams>>,
    /// `[num_positions]` f32, of the token that stands there.
    chosen: Array,
    /// Tokens, uint32, and their log-probabilities, f32, most likely first,
    /// `[num_positions, the most that a position wants]`; `None` if none wants any.
    top: Option<[Array; 2]>,
    /// Of the tokens asked for by name, end to end, f32.
    of_ids: Option<Array>,
}

impl PositionLogprobs {
    /// Of `logits` `[num_positions, vocab]` and the token at each, `[num_positions]` int32.
    /// Builds the graph only.
    ///
    /// # Errors
    /// Those of MLX.
    pub(crate) fn new(
        logits: &Array,
        tokens: &Array,
        params: Vec<Arc<LogprobParams>>,
    ) -> Result<Self> {
        let starts = (0..params.len()).step_by(PIECE);
        let pieces = starts.map(|start| {
            let end = (start + PIECE).min(params.len());
            piece(logits, tokens, (start, end), &params[start..end], num_top(&params))
        });
        let pieces: Vec<[Option<Array>; 4]> = pieces.collect::<Result<_>>()?;
        let [chosen, ids, top, of_ids] = [0, 1, 2, 3].map(|part| {
            let arrays: Vec<&Array> = pieces.iter().filter_map(|p| p[part].as_ref()).collect();
            (!arrays.is_empty()).then(|| Array::concatenate(&arrays, 0)).transpose()
        });
        let chosen = match chosen? {
            Some(chosen) => chosen,
            None => Array::zeros(&[0], Dtype::Float32)?,
        };
        Ok(Self { params, chosen, top: ids?.zip(top?).map(<[Array; 2]>::from), of_ids: of_ids? })
    }

    /// Of the sampled tokens `ids` of the rows that ask. `logits` are those that were
    /// sampled from, before temperature.
    ///
    /// # Errors
    /// Those of MLX.
    pub(crate) fn of_sampled(
        logits: &Array,
        ids: &Array,
        rows: &[&SamplingRow],
    ) -> Result<Option<Self>> {
        let asking = rows.iter().enumerate().filter_map(|(place, row)| {
            let params = row.logprobs.as_ref()?;
            // Greedy rows have temperature 0 and are not divided.
            let temperature = if row.temperature == 0.0 { 1.0 } else { row.temperature };
            Some(((place as i32, temperature), Arc::clone(params)))
        });
        let (rows, params): (Vec<(i32, f32)>, Vec<Arc<LogprobParams>>) = asking.unzip();
        if rows.is_empty() {
            return Ok(None);
        }
        let (places, temperatures): (Vec<i32>, Vec<f32>) = rows.into_iter().unzip();
        let places = Array::from_slice(&places, &[places.len()])?;
        let temperatures = Array::from_slice(&temperatures, &[temperatures.len(), 1])?;
        let logits = logits.take(&places, 0)?.astype(Dtype::Float32)?.divide(&temperatures)?;
        Self::new(&logits, &ids.take(&places, 0)?, params).map(Some)
    }

    /// What must be evaluated with the step.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        std::iter::once(&self.chosen).chain(self.top.iter().flatten()).chain(&self.of_ids)
    }

    /// One for each position. Waits for the device.
    ///
    /// # Errors
    /// Those of MLX.
    pub(crate) fn read(&self) -> Result<Vec<TokenLogprobs>> {
        let chosen: Vec<f32> = self.chosen.to_vec()?;
        let width = self.top.as_ref().map_or(0, |[ids, _]| ids.dim(1));
        let top: Vec<(f32, TokenId)> = match &self.top {
            Some([ids, top]) => {
                let (ids, top): (Vec<u32>, Vec<f32>) = (ids.to_vec()?, top.to_vec()?);
                top.into_iter().zip(ids).collect()
            }
            None => Vec::new(),
        };
        let mut of_ids = match &self.of_ids {
            Some(of_ids) => of_ids.to_vec::<f32>()?,
            None => Vec::new(),
        }
        .into_iter();
        let position = |(position, params): (usize, &Arc<LogprobParams>)| TokenLogprobs {
            logprob: chosen[position],
            top: top[position * width..][..params.top_logprobs_num.min(width)].to_vec(),
            of_ids: of_ids.by_ref().take(params.token_ids.len()).collect(),
        };
        Ok(self.params.iter().enumerate().map(position).collect())
    }
}

/// The most that a position wants of the most likely tokens.
fn num_top(params: &[Arc<LogprobParams>]) -> usize {
    params.iter().map(|params| params.top_logprobs_num).max().unwrap_or(0)
}

/// Positions `start..end`: of the chosen tokens `[end - start]`, ids and values of the
/// `num_top` most likely `[end - start, num_top]`, of the named tokens end to end.
fn piece(
    logits: &Array,
    tokens: &Array,
    (start, end): (usize, usize),
    params: &[Arc<LogprobParams>],
    num_top: usize,
) -> Result<[Option<Array>; 4]> {
    let (vocab, rows) = (logits.dim(1), end - start);
    let (first, last) = (start as i32, end as i32);
    let logits = logits.slice(&[first, 0], &[last, vocab as i32], &[1, 1])?;
    let logits = logits.astype(Dtype::Float32)?;
    let tokens = tokens.slice(&[first], &[last], &[1])?.reshape(&[rows, 1])?;
    let most = logits.max(&[-1], true)?;
    let total = logits.subtract(&most)?.exp()?.sum(&[-1], true)?.log()?.add(&most)?;
    let chosen = logits.take_along_axis(&tokens, -1)?.subtract(&total)?.reshape(&[rows])?;
    let (mut ids, mut top) = (None, None);
    let num_top = num_top.min(vocab);
    if num_top > 0 {
        let places = logits.negative()?.argpartition(num_top as i32 - 1, -1)?;
        let places = places.slice(&[0, 0], &[rows as i32, num_top as i32], &[1, 1])?;
        let values = logits.take_along_axis(&places, -1)?;
        let order = values.negative()?.argsort(-1)?;
        ids = Some(places.take_along_axis(&order, -1)?);
        top = Some(values.take_along_axis(&order, -1)?.subtract(&total)?);
    }
    let named = params.iter().enumerate().flat_map(|(row, params)| {
        params.token_ids.iter().map(move |&id| (row as i32, (row * vocab + id as usize) as i32))
    });
    let (named_rows, places): (Vec<i32>, Vec<i32>) = named.unzip();
    let mut of_ids = None;
    if !places.is_empty() {
        let named_rows = Array::from_slice(&named_rows, &[named_rows.len()])?;
        let places = Array::from_slice(&places, &[places.len()])?;
        let total = total.reshape(&[rows])?.take(&named_rows, 0)?;
        let flat = logits.reshape(&[rows * vocab])?;
        of_ids = Some(flat.take(&places, 0)?.subtract(&total)?);
    }
    Ok([Some(chosen), ids, top, of_ids])
}
