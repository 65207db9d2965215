//! Evaluation of several arrays at once.

use mlx_sys::{mlxs_async_eval, mlxs_eval};

use crate::{Array, Result, error::check, handle::pointers};

/// Computes the arrays and waits for them.
///
/// # Errors
/// A computation failed: out of memory, an unreadable file, a kernel.
pub fn eval(arrays: &[&Array]) -> Result<()> {
    let arrays = pointers(arrays);
    // SAFETY: pointers and length belong together, and the arrays are alive.
    check("eval", unsafe { mlxs_eval(arrays.as_ptr(), arrays.len()) })
}

/// Starts to compute the arrays and returns. Reading one waits for it.
///
/// # Errors
/// As for [`eval`], as far as known at this time.
pub fn async_eval(arrays: &[&Array]) -> Result<()> {
    let arrays = pointers(arrays);
    // SAFETY: pointers and length belong together, and the arrays are alive.
    check("async_eval", unsafe { mlxs_async_eval(arrays.as_ptr(), arrays.len()) })
}
