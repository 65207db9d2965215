//! Random numbers. The same key gives the same numbers, on every device.
//!
//! Without a key, numbers come from a state that each thread seeds by the
//! clock: for dummies only, never for results that someone may want again.

use mlx_sys::{
    mlxs_random_bits, mlxs_random_categorical, mlxs_random_gumbel, mlxs_random_key,
    mlxs_random_normal, mlxs_random_split, mlxs_random_uniform,
};

use crate::{
    Array, Dtype, Result,
    handle::{give, int, ints, maybe},
};

/// The key of a seed, `[2]` uint32.
///
/// # Errors
/// There is no memory.
pub fn key(seed: u64) -> Result<Array> {
    // SAFETY: only `out` is a pointer.
    give("key", |out| unsafe { mlxs_random_key(out, seed) })
}

/// `count` independent keys from one, `[count, 2]` uint32.
///
/// # Errors
/// `key` is no key.
pub fn split(key: &Array, count: usize) -> Result<Array> {
    const OP: &str = "split";
    let count = int(OP, count)?;
    // SAFETY: `key` is alive.
    give(OP, |out| unsafe { mlxs_random_split(out, key.as_raw(), count) })
}

/// Random bits, uint32.
///
/// # Errors
/// A bad shape, or `key` is no key.
pub fn bits(shape: &[usize], key: Option<&Array>) -> Result<Array> {
    const OP: &str = "bits";
    let shape = ints(OP, shape)?;
    // SAFETY: pointer and length belong together; `key` is alive.
    give(OP, |out| unsafe { mlxs_random_bits(out, shape.as_ptr(), shape.len(), maybe(key)) })
}

/// Evenly spread over `[low, high)`.
///
/// # Errors
/// A bad shape, no float type, or `key` is no key.
pub fn uniform(
    shape: &[usize],
    low: f32,
    high: f32,
    dtype: Dtype,
    key: Option<&Array>,
) -> Result<Array> {
    const OP: &str = "uniform";
    let shape = ints(OP, shape)?;
    // SAFETY: pointer and length belong together; `key` is alive.
    give(OP, |out| unsafe {
        mlxs_random_uniform(out, low, high, shape.as_ptr(), shape.len(), dtype.code(), maybe(key))
    })
}

/// Normal with mean 0 and deviation 1.
///
/// # Errors
/// As for [`uniform`].
pub fn normal(shape: &[usize], dtype: Dtype, key: Option<&Array>) -> Result<Array> {
    const OP: &str = "normal";
    let shape = ints(OP, shape)?;
    // SAFETY: pointer and length belong together; `key` is alive.
    give(OP, |out| unsafe {
        mlxs_random_normal(out, shape.as_ptr(), shape.len(), dtype.code(), maybe(key))
    })
}

/// Standard Gumbel: the argmax of logits plus this is a sample of their softmax.
///
/// # Errors
/// As for [`uniform`].
pub fn gumbel(shape: &[usize], dtype: Dtype, key: Option<&Array>) -> Result<Array> {
    const OP: &str = "gumbel";
    let shape = ints(OP, shape)?;
    // SAFETY: pointer and length belong together; `key` is alive.
    give(OP, |out| unsafe {
        mlxs_random_gumbel(out, shape.as_ptr(), shape.len(), dtype.code(), maybe(key))
    })
}

/// One sample per row of unnormalised log probabilities along `axis`, uint32.
///
/// # Errors
/// There is no such axis, or `key` is no key.
pub fn categorical(logits: &Array, axis: i32, key: Option<&Array>) -> Result<Array> {
    // SAFETY: `logits` and `key` are alive.
    give("categorical", |out| unsafe {
        mlxs_random_categorical(out, logits.as_raw(), axis, maybe(key))
    })
}
