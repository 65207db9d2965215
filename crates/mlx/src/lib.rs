//! Safe arrays on Apple's MLX.
//!
//! Arrays are lazy: an operation builds a graph, [`eval`] runs it. Streams are
//! bound to their thread, so a lazy array must be evaluated where it was built;
//! [`Array`] is neither `Send` nor `Sync`, and one thread owns all of MLX. The
//! stream argument of MLX's operations is left out: it is always the default
//! stream of the default device.
//!
//! ```compile_fail
//! let array = mlx::Array::scalar(1.0_f32).unwrap();
//! std::thread::spawn(move || array.eval());
//! ```

mod array;
mod compile;
pub mod device;
mod dtype;
mod error;
pub mod fast;
pub mod io;
mod map;
pub mod memory;
mod ops;
pub mod quantized;
pub mod random;
mod transforms;
mod version;

pub use array::Array;
pub use compile::{Compiled, compile};
pub use dtype::{Dtype, Element};
pub use error::{Error, Result};
pub use transforms::{async_eval, eval, synchronize};
pub use version::{PINNED_VERSION, check_version, version};
