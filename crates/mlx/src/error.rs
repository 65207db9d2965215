//! The one error type: MLX's text, as opaque as it comes.

use mlx_sys::mlxs_last_error;

/// A call that MLX, or this crate before it, refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {message}")]
pub struct Error {
    /// The operation, by its name in this crate.
    pub op: &'static str,
    /// What was wrong. For people: never to be taken apart.
    pub message: String,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(op: &'static str, message: impl Into<String>) -> Self {
        Self { op, message: message.into() }
    }

    /// The message that the shim kept for the call that just failed.
    pub(crate) fn last(op: &'static str) -> Self {
        let mut len = 0;
        // SAFETY: `len` is writable; the text lives until the thread's next
        // failing call and is copied before that.
        let bytes = unsafe {
            let text = mlxs_last_error(&raw mut len);
            std::slice::from_raw_parts(text.cast::<u8>(), len)
        };
        Self::new(op, String::from_utf8_lossy(bytes))
    }
}

/// Turns a status of the shim into a result.
pub(crate) fn check(op: &'static str, status: i32) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(Error::last(op)) }
}
