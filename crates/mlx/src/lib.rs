//! Safe arrays on MLX: operations, fused layers, quantization, files, memory.
//!
//! [`Array`] is a reference-counted node of a lazy graph. Nothing is computed
//! before [`eval`], [`async_eval`] or reading values. MLX's streams belong to
//! threads: a lazy array can only be evaluated on the thread that made it, so
//! `Array` is neither `Send` nor `Sync`, and one thread owns all of MLX.
//!
//! Every failure of MLX is an [`Error`] value; no call panics on bad shapes.
#![warn(missing_docs)]
#![expect(unsafe_code, reason = "the safe side of the C ABI in mlx-sys")]

mod array;
pub mod compile;
pub mod cpu_kernel;
pub mod cuda_graph;
pub mod device;
mod dtype;
mod element;
mod error;
pub mod fast;
pub mod gpu_kernel;
mod handle;
pub mod io;
pub mod memory;
mod ops;
pub mod quantized;
pub mod random;
mod transforms;
mod version;

pub use array::Array;
pub use compile::{Compiled, compile};
pub use device::synchronize;
pub use dtype::Dtype;
pub use element::Element;
pub use error::{Error, Result};
pub use transforms::{async_eval, eval};
pub use version::{PINNED_VERSION, check_version, version};
