//! Fused operations.

use crate::{array::Array, error::Result};

fn optional(array: Option<&Array>) -> *const mlx_sys::smlx_array {
    array.map_or(std::ptr::null(), Array::as_ptr)
}

/// Where rotary positions start.
#[derive(Debug, Clone, Copy)]
pub enum RopeOffset<'a> {
    /// One for the whole array.
    Scalar(i32),
    /// `[batch]` int32: one for each entry of the first dimension.
    PerBatch(&'a Array),
}

/// Root-mean-square norm over the last dimension.
///
/// # Errors
/// If shapes do not fit.
pub fn rms_norm(x: &Array, weight: Option<&Array>, eps: f32) -> Result<Array> {
    // SAFETY: live arrays or null.
    Array::build("rms_norm", |out| unsafe {
        mlx_sys::smlx_rms_norm(x.as_ptr(), optional(weight), eps, out)
    })
}

/// Layer norm over the last dimension.
///
/// # Errors
/// If shapes do not fit.
pub fn layer_norm(
    x: &Array,
    weight: Option<&Array>,
    bias: Option<&Array>,
    eps: f32,
) -> Result<Array> {
    // SAFETY: live arrays or null.
    Array::build("layer_norm", |out| unsafe {
        mlx_sys::smlx_layer_norm(x.as_ptr(), optional(weight), optional(bias), eps, out)
    })
}

/// Rotary embedding of `x` `[batch, ..., time, features]`: time step `t` has
/// position `offset + t`. The leading `dims` features rotate, in halves or, if
/// `traditional`, in neighbouring pairs. `freqs` `[dims / 2]` f32 holds the
/// *inverse* of each pair's angular frequency.
///
/// # Errors
/// If shapes do not fit, or not exactly one of `base` and `freqs` is given.
#[expect(clippy::too_many_arguments, reason = "the names and order of MLX's own function")]
pub fn rope(
    x: &Array,
    dims: usize,
    traditional: bool,
    base: Option<f32>,
    scale: f32,
    offset: RopeOffset<'_>,
    freqs: Option<&Array>,
) -> Result<Array> {
    let (scalar, per_batch) = match offset {
        RopeOffset::Scalar(offset) => (offset, None),
        RopeOffset::PerBatch(offsets) => (0, Some(offsets)),
    };
    // SAFETY: live arrays or null.
    Array::build("rope", |out| unsafe {
        mlx_sys::smlx_rope(
            x.as_ptr(),
            dims as i32,
            traditional,
            base.is_some(),
            base.unwrap_or_default(),
            scale,
            scalar,
            optional(per_batch),
            optional(freqs),
            out,
        )
    })
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy)]
pub enum SdpaMask<'a> {
    /// All.
    None,
    /// Those up to its own position; the last query is aligned with the last key.
    Causal,
    /// Boolean (true: seen) or added to the scores; broadcasts to
    /// `[batch, heads, queries, keys]`.
    Array(&'a Array),
}

/// softmax(scale · q kᵀ + mask) v. q `[batch, heads, queries, head_dim]`; k and v
/// `[batch, kv_heads, keys, head_dim]`; `sinks` `[heads]`.
///
/// # Errors
/// If shapes do not fit.
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
    // SAFETY: live arrays or null.
    Array::build("scaled_dot_product_attention", |out| unsafe {
        mlx_sys::smlx_sdpa(
            q.as_ptr(),
            k.as_ptr(),
            v.as_ptr(),
            scale,
            causal,
            optional(mask),
            optional(sinks),
            out,
        )
    })
}
