//! SIMD kernels of the CPU device.
#![expect(
    unsafe_code,
    reason = "vector instructions, and threads that share slices in disjoint parts"
)]

pub mod isa;
pub mod matmul;
pub mod parallel;
mod product;
pub mod qmm;
mod scratch;
mod simd;
pub mod values;
