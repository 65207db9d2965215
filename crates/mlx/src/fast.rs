//! Fused layers.

use mlx_sys::{mlxs_layer_norm, mlxs_rms_norm, mlxs_rope, mlxs_sdpa};

use crate::{
    Array, Result,
    handle::{give, int, maybe},
};

/// Divides by the root mean square of the last axis, then scales by `weight`
/// (`[dims]`).
///
/// # Errors
/// `weight` does not fit the last axis.
pub fn rms_norm(x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array> {
    // SAFETY: all arrays are alive.
    give("rms_norm", |out| unsafe { mlxs_rms_norm(out, x.as_raw(), maybe(weight), eps) })
}

/// Normalises the last axis to mean 0 and variance 1, then scales and shifts by
/// `weight` and `bias` (`[dims]`).
///
/// # Errors
/// `weight` or `bias` does not fit the last axis.
pub fn layer_norm(
    x: &Array,
    weight: Option<&Array>,
    bias: Option<&Array>,
    eps: f32,
) -> Result<Array> {
    // SAFETY: all arrays are alive.
    give("layer_norm", |out| unsafe {
        mlxs_layer_norm(out, x.as_raw(), maybe(weight), maybe(bias), eps)
    })
}

/// Position of the first token in [`rope`].
#[derive(Debug, Clone, Copy)]
pub enum RopeOffset<'a> {
    /// The same for the whole batch.
    Scalar(i32),
    /// One per batch row, `[batch]` int32.
    PerBatch(&'a Array),
}

/// Rotary position embedding of `x`, `[batch, ..., seq_len, head_dim]`.
///
/// For flat tokens pass `[num_tokens, num_heads, 1, head_dim]` with one offset
/// per token. Only the first `dims` elements of the last axis are rotated:
/// neighbours if `traditional`, else the two halves. Positions are multiplied
/// by `scale`. Instead of the frequencies' `base` there may be `freqs`, the
/// inverse frequencies, `[dims / 2]`.
///
/// # Errors
/// The shapes do not fit, or not exactly one of `base` and `freqs` is given.
#[expect(clippy::too_many_arguments, reason = "MLX's own signature, known to its users")]
pub fn rope(
    x: &Array,
    dims: usize,
    traditional: bool,
    base: Option<f32>,
    scale: f32,
    offset: RopeOffset<'_>,
    freqs: Option<&Array>,
) -> Result<Array> {
    const OP: &str = "rope";
    let dims = int(OP, dims)?;
    let (start, starts) = match offset {
        RopeOffset::Scalar(start) => (start, None),
        RopeOffset::PerBatch(starts) => (0, Some(starts)),
    };
    let base = base.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: all arrays are alive; `base` is null or points to a live f32.
    give(OP, |out| unsafe {
        mlxs_rope(
            out,
            x.as_raw(),
            dims,
            traditional,
            base,
            scale,
            start,
            maybe(starts),
            maybe(freqs),
        )
    })
}

/// Which keys a query may see.
#[derive(Debug, Clone, Copy)]
pub enum SdpaMask<'a> {
    /// All.
    None,
    /// Those at or before it; the last query is at the last key.
    Causal,
    /// Broadcasts to `[batch, num_heads, num_queries, num_keys]`: a bool (true
    /// is seen) or a float that is added to the scores.
    Array(&'a Array),
}

/// `softmax(scale * q @ k.T) @ v`, with q `[batch, num_heads, num_queries,
/// head_dim]`, k and v `[batch, num_kv_heads, num_keys, head_dim]`; the number
/// of heads is a multiple of that of the K/V heads. `sinks` (`[num_heads]`) are
/// scores that take part in the softmax only.
///
/// # Errors
/// The shapes do not fit.
pub fn scaled_dot_product_attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f32,
    mask: SdpaMask<'_>,
    sinks: Option<&Array>,
) -> Result<Array> {
    let (causal, mask) = match mask {
        SdpaMask::None => (false, None),
        SdpaMask::Causal => (true, None),
        SdpaMask::Array(mask) => (false, Some(mask)),
    };
    // SAFETY: all arrays are alive.
    give("scaled_dot_product_attention", |out| unsafe {
        mlxs_sdpa(out, q.as_raw(), k.as_raw(), v.as_raw(), scale, causal, maybe(mask), maybe(sinks))
    })
}
