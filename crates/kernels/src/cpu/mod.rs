//! SIMD kernels of the CPU device.
