//! The gated activation of an MLP over the fused rows of its two projections.
//!
//! Upstream: `sglang/srt/layers/activation.py` (`SiluAndMul`).

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "silu_and_mul", body: include_str!("body.inc") };

/// The launch for `rows` rows of `width` results.
///
/// # Errors
/// Rows that are not a multiple of 16 bytes.
pub fn call(rows: usize, width: usize, dtype: Dtype) -> Result<Call, KernelError> {
    shapes::pack_a_thread(&KERNEL, [rows, width], dtype, &[])
}

/// Whether the kernel knows rows of `width` results.
pub fn supports(width: usize, dtype: Dtype) -> bool {
    shapes::has_packs(width, dtype)
}

/// `[rows, 2 * width]` (gate, then up) to `silu(gate) * up`, `[rows, width]`.
///
/// # Errors
/// An odd width, or an error of MLX.
pub fn silu_and_mul(kernels: &Kernels, gate_up: &Array) -> Result<Array, KernelError> {
    let [rows, width] = shapes::matrix(KERNEL.name, "a rank of gate_up", gate_up)?;
    if !width.is_multiple_of(2) {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a row", size: width });
    }
    let call = call(rows, width / 2, gate_up.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[gate_up])?))
}
