//! Kernels of our own: SIMD on the CPU device, portable source text on GPUs.
//!
//! A kernel for GPUs is one folder: `body.inc` in the dialect of `dialect/`, the
//! launcher, a plain reference. The tests run the bodies in an emulator on the
//! CPU (crate `kernel-emulator`); `examples/gpu_check.rs` runs them on a GPU.

pub mod cpu;
mod error;
pub mod kernel;
pub mod kv_write;
pub mod paged_decode;
mod shapes;

pub use error::KernelError;
pub use kernel::{Call, Constant, Kernel, Kernels};
pub use kv_write::{KvWriteInputs, kv_write};
pub use paged_decode::{AttentionSpec, DecodeInputs, paged_decode};
