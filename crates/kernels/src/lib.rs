//! Kernels of our own: SIMD on the CPU device, portable source text on GPUs.

pub mod cpu;
