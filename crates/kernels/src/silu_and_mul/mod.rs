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
    let pack = 16 / dtype.size_in_bytes();
    if !width.is_multiple_of(pack) || width == 0 {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a row", size: width });
    }
    let threads = (width / pack).next_multiple_of(32).min(128);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", dtype)],
        constants: vec![("WIDTH", width.into())],
        groups: [(width / pack).div_ceil(threads), rows, 1],
        threads,
        outputs: vec![(vec![rows, width], dtype)],
    })
}

/// Whether the kernel knows rows of `width` results.
pub fn supports(width: usize, dtype: Dtype) -> bool {
    dtype.is_float() && call(1, width, dtype).is_ok()
}

/// `[rows, 2 * width]` (gate, then up) to `silu(gate) * up`, `[rows, width]`.
///
/// # Errors
/// An odd width, or an error of MLX.
pub fn silu_and_mul(kernels: &Kernels, gate_up: &Array) -> Result<Array, KernelError> {
    let [rows, width] = *gate_up.shape() else {
        let size = gate_up.ndim();
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a rank of gate_up", size });
    };
    if !width.is_multiple_of(2) {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a row", size: width });
    }
    let call = call(rows, width / 2, gate_up.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[gate_up])?))
}
