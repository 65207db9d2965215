//! MLX's allocator, in bytes.

use crate::error::{Result, check};

fn get(what: i32) -> usize {
    let mut out = 0;
    // SAFETY: a valid place for the figure.
    let status = unsafe { mlx_sys::smlx_memory_get(what, &mut out) };
    check("memory", status).map_or(0, |()| out)
}

fn set(op: &'static str, what: i32, limit: usize) -> Result<usize> {
    let mut before = 0;
    // SAFETY: a valid place for the former limit.
    check(op, unsafe { mlx_sys::smlx_memory_set(what, limit, &mut before) })?;
    Ok(before)
}

/// Held by live arrays.
pub fn active_bytes() -> usize {
    get(0)
}

/// The most ever held by live arrays, or since [`reset_peak`].
pub fn peak_bytes() -> usize {
    get(1)
}

/// Freed buffers kept for reuse.
pub fn cache_bytes() -> usize {
    get(2)
}

/// Starts [`peak_bytes`] anew.
///
/// # Errors
/// What MLX says.
pub fn reset_peak() -> Result<()> {
    // SAFETY: no arguments.
    check("reset_peak", unsafe { mlx_sys::smlx_memory_reset_peak() })
}

/// Gives freed buffers back to the system.
///
/// # Errors
/// What MLX says.
pub fn clear_cache() -> Result<()> {
    // SAFETY: no arguments.
    check("clear_cache", unsafe { mlx_sys::smlx_memory_clear_cache() })
}

/// Sets the guideline above which MLX waits before it allocates more; returns
/// the former one.
///
/// # Errors
/// What MLX says.
pub fn set_memory_limit(bytes: usize) -> Result<usize> {
    set("set_memory_limit", 0, bytes)
}

/// Sets how much [`cache_bytes`] may grow to; returns the former limit.
///
/// # Errors
/// What MLX says.
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    set("set_cache_limit", 1, bytes)
}

/// Sets how much memory stays resident (Metal on macOS 15 and later); returns
/// the former limit.
///
/// # Errors
/// What MLX says.
pub fn set_wired_limit(bytes: usize) -> Result<usize> {
    set("set_wired_limit", 2, bytes)
}
