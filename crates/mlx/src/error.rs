//! What can go wrong in MLX. The text is MLX's own and never classified.

use std::ffi::{CStr, c_int};

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The operation, by its name here.
    pub op: &'static str,
    /// MLX's words.
    pub message: String,
}

/// Most functions of this crate return it.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.op, self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(crate) fn new(op: &'static str, message: impl Into<String>) -> Self {
        Self { op, message: message.into() }
    }
}

/// Turns a status of the shim into a result.
pub(crate) fn check(op: &'static str, status: c_int) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the shim returns a NUL-terminated string of this thread, valid
    // until its next call; it is copied here.
    let message = unsafe { CStr::from_ptr(mlx_sys::smlx_last_error()) };
    Err(Error::new(op, message.to_string_lossy()))
}
