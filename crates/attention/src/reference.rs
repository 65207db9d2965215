//! Attention as in the textbook, in f64: what backends are tested against.

use crate::AttentionShape;

/// Keys and values of one sequence, in the order of its tokens, each
/// `[seq_len, num_kv_heads, head_dim]` flat.
pub(crate) struct Sequence {
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
}

/// The output of one query, `[num_heads, value_dim]` flat. It stands at
/// `position` and sees what is before, itself included. `sinks` has one score for each
/// head, which takes weight and gives no value, or none.
pub(crate) fn attend(
    (shape, sinks): (&AttentionShape, Option<&[f32]>),
    q: &[f32],
    sequence: &Sequence,
    position: usize,
) -> Vec<f64> {
    let dim = shape.head_dim;
    let is_seen = |token: &usize| {
        shape.sliding_window.is_none_or(|window| position - token < window)
            && shape.attention_chunk.is_none_or(|chunk| position / chunk == token / chunk)
    };
    let seen: Vec<usize> = (0..=position).filter(is_seen).collect();
    let mut out = Vec::with_capacity(q.len());
    for (head, q) in q.chunks(dim).enumerate() {
        let kv_head = head * shape.num_kv_heads / shape.num_heads;
        let row = |token: usize| {
            let start = (token * shape.num_kv_heads + kv_head) * dim;
            start..start + dim
        };
        let score = |token: usize| {
            let dot: f64 = q
                .iter()
                .zip(&sequence.k[row(token)])
                .map(|(q, k)| f64::from(*q) * f64::from(*k))
                .sum();
            let score = dot * f64::from(shape.scale);
            shape.soft_cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
        };
        let scores: Vec<f64> = seen.iter().copied().map(score).collect();
        let sink = sinks.map_or(f64::NEG_INFINITY, |sinks| f64::from(sinks[head]));
        let highest = scores.iter().copied().fold(sink, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
        let total = weights.iter().sum::<f64>() + (sink - highest).exp();
        // Of latents, the value is the key's first elements.
        let mut sum = vec![0.0; shape.value_dim()];
        for (weight, &token) in weights.iter().zip(&seen) {
            for (sum, v) in sum.iter_mut().zip(&sequence.v[row(token)]) {
                *sum += weight / total * f64::from(*v);
            }
        }
        out.extend(sum);
    }
    out
}
