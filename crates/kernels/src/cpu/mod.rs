//! Kernels of the CPU device: SIMD by what the processor turns out to have, on
//! all cores, f32 inside. Nodes of MLX's graph, see [`mlx::cpu_kernel`].
#![expect(
    unsafe_code,
    reason = "vector instructions, and threads that share slices in disjoint parts"
)]

pub mod attention;
pub mod chain;
mod floats;
pub mod isa;
mod lanes;
pub mod matmul;
pub mod moe;
mod nodes;
pub mod parallel;
mod product;
pub mod qmm;
pub mod recurrent;
mod rows;
mod scratch;
mod simd;
pub mod values;

pub use nodes::{matmul, quantized_matmul, supports_quantized};
pub use rows::{HeadNorms, add_rms_norm, rms_norm, rope_split, silu_and_mul};
