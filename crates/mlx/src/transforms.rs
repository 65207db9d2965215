//! Running graphs.

use crate::{
    array::Array,
    error::{Result, check},
};

pub(crate) fn pointers(arrays: &[&Array]) -> Vec<*const mlx_sys::smlx_array> {
    arrays.iter().map(|array| array.as_ptr()).collect()
}

/// Runs what the arrays need and waits for it.
///
/// # Errors
/// What the operations say.
pub fn eval(arrays: &[&Array]) -> Result<()> {
    let items = pointers(arrays);
    // SAFETY: live arrays.
    check("eval", unsafe { mlx_sys::smlx_eval(items.as_ptr(), items.len(), false) })
}

/// Starts what the arrays need and returns. Reading one waits for it.
///
/// # Errors
/// What the operations say when they are enqueued; later failures show when an
/// array is read.
pub fn async_eval(arrays: &[&Array]) -> Result<()> {
    let items = pointers(arrays);
    // SAFETY: live arrays.
    check("async_eval", unsafe { mlx_sys::smlx_eval(items.as_ptr(), items.len(), true) })
}

/// Waits for everything on this thread's default stream.
///
/// # Errors
/// What failed in the meantime.
pub fn synchronize() -> Result<()> {
    // SAFETY: no arguments.
    check("synchronize", unsafe { mlx_sys::smlx_synchronize() })
}
