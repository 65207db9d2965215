//! Random numbers. With a key they are a function of it; without, of a hidden
//! state of the thread.

use crate::{
    array::{Array, dims},
    dtype::Dtype,
    error::Result,
};

fn optional(array: Option<&Array>) -> *const mlx_sys::smlx_array {
    array.map_or(std::ptr::null(), Array::as_ptr)
}

/// A key, `[2]` uint32.
///
/// # Errors
/// What MLX says.
pub fn key(seed: u64) -> Result<Array> {
    // SAFETY: plain value.
    Array::build("random_key", |out| unsafe { mlx_sys::smlx_random_key(seed, out) })
}

/// `count` keys that share nothing with `key`, `[count, 2]`.
///
/// # Errors
/// What MLX says.
pub fn split(key: &Array, count: usize) -> Result<Array> {
    // SAFETY: a live array.
    Array::build("random_split", |out| unsafe {
        mlx_sys::smlx_random_split(key.as_ptr(), count as i32, out)
    })
}

/// Uniform over `[low, high)`.
///
/// # Errors
/// What MLX says.
pub fn uniform(
    shape: &[usize],
    low: f32,
    high: f32,
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let op = "random_uniform";
    let shape = dims(op, shape)?;
    let low = Array::scalar(low)?.astype(dtype)?;
    let high = Array::scalar(high)?.astype(dtype)?;
    // SAFETY: live arrays; the shape is copied.
    Array::build(op, |out| unsafe {
        mlx_sys::smlx_random_uniform(
            low.as_ptr(),
            high.as_ptr(),
            shape.as_ptr(),
            shape.len(),
            dtype.code(),
            optional(key),
            out,
        )
    })
}

/// Normal with the given mean and deviation.
///
/// # Errors
/// What MLX says.
pub fn normal(
    shape: &[usize],
    mean: f32,
    deviation: f32,
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    let op = "random_normal";
    let shape = dims(op, shape)?;
    // SAFETY: a live array or null; the shape is copied.
    Array::build(op, |out| unsafe {
        mlx_sys::smlx_random_normal(
            shape.as_ptr(),
            shape.len(),
            dtype.code(),
            mean,
            deviation,
            optional(key),
            out,
        )
    })
}

/// Standard Gumbel.
///
/// # Errors
/// What MLX says.
pub fn gumbel(shape: &[usize], dtype: Dtype, key: Option<&Array>) -> Result<Array> {
    let op = "random_gumbel";
    let shape = dims(op, shape)?;
    // SAFETY: a live array or null; the shape is copied.
    Array::build(op, |out| unsafe {
        mlx_sys::smlx_random_gumbel(shape.as_ptr(), shape.len(), dtype.code(), optional(key), out)
    })
}

/// One draw along `axis` of unnormalised log-probabilities.
///
/// # Errors
/// What MLX says.
pub fn categorical(logits: &Array, axis: i32, key: Option<&Array>) -> Result<Array> {
    // SAFETY: live arrays or null.
    Array::build("random_categorical", |out| unsafe {
        mlx_sys::smlx_random_categorical(logits.as_ptr(), axis, optional(key), out)
    })
}

/// Random words, uint32.
///
/// # Errors
/// What MLX says.
pub fn bits(shape: &[usize], key: Option<&Array>) -> Result<Array> {
    let op = "random_bits";
    let shape = dims(op, shape)?;
    // SAFETY: a live array or null; the shape is copied.
    Array::build(op, |out| unsafe {
        mlx_sys::smlx_random_bits(shape.as_ptr(), shape.len(), 4, optional(key), out)
    })
}
