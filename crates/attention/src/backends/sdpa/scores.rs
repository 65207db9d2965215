//! From queries and gathered keys to results: MLX's fused attention, or one with a cap on
//! the scores, which that has not. There all scores of a call exist at once, so long prompts
//! take memory by the square.

use mlx::{
    Array, Dtype, Result,
    fast::{SdpaMask, scaled_dot_product_attention},
};

use crate::{AttentionCall, Sinks};

/// `q` `[reqs, heads, len, head_dim]`, `k` and `v` `[reqs, kv_heads, num_keys,
/// head_dim]`; gives what `q` is, as wide as `v`.
pub(super) fn attend(
    call: &AttentionCall<'_>,
    q: &Array,
    (k, v): (&Array, &Array),
    mask: SdpaMask<'_>,
) -> Result<Array> {
    let (shape, sinks) = (call.shape, call.sinks.map(Sinks::array));
    let Some(cap) = shape.soft_cap else {
        let sinks = sinks.map(|sinks| sinks.astype(q.dtype())).transpose()?;
        return scaled_dot_product_attention(q, k, v, shape.scale, mask, sinks.as_ref());
    };
    let (reqs, heads, len, head_dim) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3));
    let (kv_heads, num_keys) = (k.dim(1), k.dim(2));
    let grouped = q.reshape(&[reqs, kv_heads, heads / kv_heads, len, head_dim])?;
    let keys = k.expand_dims(2)?.swapaxes(-1, -2)?;
    let scores = grouped.matmul(&keys)?.astype(Dtype::Float32)?;
    let capped = scores.mul_scalar(shape.scale / cap)?.tanh()?.mul_scalar(cap)?;
    let seen = match mask {
        SdpaMask::None => None,
        SdpaMask::Causal => Some(causal(len, num_keys)?),
        SdpaMask::Array(mask) if mask.ndim() == 4 => Some(mask.expand_dims(2)?),
        SdpaMask::Array(mask) => Some(mask.clone()),
    };
    let scores = match seen {
        Some(seen) => seen.where_(&capped, &Array::scalar(f32::NEG_INFINITY)?)?,
        None => capped,
    };
    let weights = match sinks {
        Some(sinks) => softmax_with(&scores, sinks)?,
        None => scores.softmax(-1, true)?,
    };
    let weights = weights.astype(v.dtype())?;
    weights.matmul(&v.expand_dims(2)?)?.reshape(&[reqs, heads, len, v.dim(3)])
}

/// `[len, num_keys]`: queries are the last keys.
fn causal(len: usize, num_keys: usize) -> Result<Array> {
    let range = |from: usize, to: usize| Array::arange(from as f64, to as f64, 1.0, Dtype::Int32);
    let queries = range(num_keys - len, num_keys)?.expand_dims(1)?;
    queries.greater_equal(&range(0, num_keys)?)
}

/// Softmax of f32 `scores` `[reqs, kv_heads, group, len, num_keys]` and of the sink of each
/// head, whose own weight nothing is multiplied with.
fn softmax_with(scores: &Array, sinks: &Array) -> Result<Array> {
    let mut shape = scores.shape().to_vec();
    let stops: Vec<i32> = shape.iter().map(|&dim| dim as i32).collect();
    shape[4] = 1;
    let sinks = sinks.reshape(&[1, shape[1], shape[2], 1, 1])?.broadcast_to(&shape)?;
    let weights = Array::concatenate(&[scores, &sinks], -1)?.softmax(-1, true)?;
    weights.slice(&[0; 5], &stops, &[1; 5])
}
