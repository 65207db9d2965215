//! Kernels of our own: SIMD on the CPU device, portable source text on GPUs.
//!
//! A kernel for GPUs is one folder: `body.inc` in the dialect of `dialect/`, the
//! launcher, a plain reference. The tests run the bodies in an emulator on the
//! CPU (crate `kernel-emulator`); `examples/gpu_check.rs` runs them on a GPU.

pub mod add_bias;
pub mod add_gated;
pub mod add_rms_norm;
pub mod causal_conv;
pub mod cpu;
pub mod embed_packed;
mod error;
pub mod kernel;
pub mod kv_row;
pub mod kv_write;
pub mod moe_sum;
pub mod moe_topk;
pub mod paged_decode;
pub mod paged_extend;
mod probe;
pub mod qmm_few;
pub mod qmv_batch;
mod reach;
pub mod recurrent_scan;
pub mod rms_norm;
pub mod rope_kv_write;
mod shapes;
pub mod silu_and_mul;
pub mod tape;

pub use add_bias::add_bias;
pub use add_gated::add_gated;
pub use add_rms_norm::add_rms_norm;
pub use causal_conv::{ConvInputs, ConvSpec, StateArrays, causal_conv};
pub use embed_packed::{EmbedSpec, embed_packed};
pub use error::KernelError;
pub use kernel::{Call, Constant, Kernel, Kernels};
pub use kv_row::KvDtype;
pub use kv_write::{KvWriteInputs, kv_write};
pub use moe_sum::moe_sum;
pub use moe_topk::{TopKSpec, moe_topk};
pub use paged_decode::{AttentionSpec, DecodeInputs, paged_decode};
pub use paged_extend::{ExtendInputs, ExtendTiling, paged_extend};
pub use probe::probe;
pub use qmm_few::{GatherSpec, QmmTiling, gather_qmm_few, qmm_few};
pub use qmv_batch::{QmvSpec, QmvWeights, qmv_batch};
pub use reach::Reach;
pub use recurrent_scan::{ScanInputs, ScanSpec, recurrent_scan};
pub use rms_norm::rms_norm;
pub use rope_kv_write::{RopeInputs, RopeSpec, rope_kv_write};
pub use silu_and_mul::silu_and_mul;
