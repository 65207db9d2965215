//! Attention over pages in double precision, one row at a time.

use super::AttentionSpec;

/// One request's K/V: where its tokens are in the pools.
#[derive(Debug, Clone, Copy)]
pub struct PagedKv<'a> {
    /// `[num_slots, num_kv_heads, head_dim]`.
    pub k_pool: &'a [f32],
    /// As `k_pool`.
    pub v_pool: &'a [f32],
    /// Pages of the request, in order.
    pub pages: &'a [i32],
}

/// What the token at `position` (from 0) sees, for one query head `head` whose
/// query is `q`. Returns `head_dim` values.
pub fn attend(
    spec: &AttentionSpec,
    kv: &PagedKv<'_>,
    position: usize,
    head: usize,
    q: &[f32],
    sink: Option<f32>,
) -> Vec<f64> {
    let is_seen = |token: usize| {
        spec.reach.window.is_none_or(|window| position - token < window)
            && spec.reach.chunk.is_none_or(|chunk| position / chunk == token / chunk)
    };
    let seen: Vec<usize> = (0..=position).filter(|token| is_seen(*token)).collect();
    let row_of = |token: usize| {
        let page = usize::try_from(kv.pages[token / spec.page_size]).expect("a page in use");
        let slot = page * spec.page_size + token % spec.page_size;
        (slot * spec.num_kv_heads + head / spec.group()) * spec.head_dim
    };
    let scores: Vec<f64> = seen
        .iter()
        .map(|&token| {
            let k = &kv.k_pool[row_of(token)..][..spec.head_dim];
            let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let score = dot * f64::from(spec.scale);
            spec.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        })
        .collect();
    let sink = sink.map(f64::from);
    let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let mut total: f64 = sink.map_or(0.0, |sink| (sink - max).exp());
    let mut out = vec![0.0; spec.head_dim];
    for (token, score) in seen.into_iter().zip(scores) {
        let weight = (score - max).exp();
        total += weight;
        let v = &kv.v_pool[row_of(token)..][..spec.head_dim];
        for (sum, value) in out.iter_mut().zip(v) {
            *sum += weight * f64::from(*value);
        }
    }
    out.iter().map(|sum| sum / total).collect()
}
