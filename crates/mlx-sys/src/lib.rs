//! The C ABI of the shim in `shim/`, declared for Rust: no logic, no safety.
//!
//! The `mlx` crate is the only user. Each function that returns `i32` answers
//! 0, or 1 with a message for [`mlxs_last_error`]; an out-parameter is written
//! on 0 only, and what it holds then belongs to the caller. Optional arrays
//! are null pointers. Handles may only be used on the thread that made them,
//! unless all arrays behind them are evaluated.
//!
//! On Linux this crate also brings the matrix product that MLX's CPU device
//! uses, see [`blas`].
#![expect(unsafe_code, reason = "this is where the C ABI is declared")]

#[cfg(target_os = "linux")]
pub mod blas;
mod ffi;

pub use ffi::*;

/// The MLX version that the shim is compiled for.
pub const PINNED_VERSION: &str = env!("MLX_PINNED_VERSION");

/// Folder of the library that this was linked against.
pub const LIB_DIR: &str = env!("MLX_LIB_DIR");
