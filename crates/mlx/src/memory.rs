//! MLX's allocator: how much is in use, and its limits. All sizes in bytes.
//!
//! The readings never fail in practice; should MLX refuse one, it reads 0.

use mlx_sys::{
    mlxs_clear_cache, mlxs_get_active_memory, mlxs_get_cache_memory, mlxs_get_memory_limit,
    mlxs_get_peak_memory, mlxs_reset_peak_memory, mlxs_set_cache_limit, mlxs_set_memory_limit,
    mlxs_set_wired_limit,
};

use crate::{Result, error::check};

fn read(get: unsafe extern "C" fn(*mut usize) -> i32) -> usize {
    let mut bytes = 0;
    // SAFETY: `bytes` is writable.
    let status = unsafe { get(&raw mut bytes) };
    if status == 0 { bytes } else { 0 }
}

fn set(
    op: &'static str,
    call: unsafe extern "C" fn(usize, *mut usize) -> i32,
    limit: usize,
) -> Result<usize> {
    let mut previous = 0;
    // SAFETY: `previous` is writable.
    check(op, unsafe { call(limit, &raw mut previous) })?;
    Ok(previous)
}

/// Held by arrays.
pub fn active_bytes() -> usize {
    read(mlxs_get_active_memory)
}

/// The most that was held by arrays since the start or [`reset_peak`].
pub fn peak_bytes() -> usize {
    read(mlxs_get_peak_memory)
}

/// Freed by arrays and kept for the next ones.
pub fn cache_bytes() -> usize {
    read(mlxs_get_cache_memory)
}

/// Above this an allocation waits for work in flight, or fails.
pub fn memory_limit() -> usize {
    read(mlxs_get_memory_limit)
}

/// Starts [`peak_bytes`] anew.
pub fn reset_peak() {
    // SAFETY: takes nothing. Resetting a counter cannot fail.
    let _ = unsafe { mlxs_reset_peak_memory() };
}

/// Gives cached buffers back to the system.
pub fn clear_cache() {
    // SAFETY: takes nothing. A cache that stays is harmless.
    let _ = unsafe { mlxs_clear_cache() };
}

/// Sets [`memory_limit`] and returns the one before.
///
/// # Errors
/// MLX refuses the limit.
pub fn set_memory_limit(bytes: usize) -> Result<usize> {
    set("set_memory_limit", mlxs_set_memory_limit, bytes)
}

/// Limits [`cache_bytes`] and returns the limit before; 0 turns the cache off.
///
/// # Errors
/// MLX refuses the limit.
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    set("set_cache_limit", mlxs_set_cache_limit, bytes)
}

/// Memory that macOS keeps resident for the GPU, and the limit before. Leave
/// it alone unless asked: it is reported to bring machines down. No effect on
/// other platforms.
///
/// # Errors
/// More than the system allows.
pub fn set_wired_limit(bytes: usize) -> Result<usize> {
    set("set_wired_limit", mlxs_set_wired_limit, bytes)
}
