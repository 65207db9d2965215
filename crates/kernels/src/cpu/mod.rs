//! Kernels of the CPU device: SIMD by what the processor turns out to have, on
//! all cores, f32 inside. Nodes of MLX's graph, see [`mlx::cpu_kernel`].

pub mod attention;
mod floats;
mod parallel;
mod qmm;
mod rows;
mod simd;

pub use parallel::{num_threads, parallel_for};
pub use qmm::{quantized_matmul, supports as supports_quantized};
pub use rows::{add_rms_norm, rms_norm, rope_split, silu_and_mul};
