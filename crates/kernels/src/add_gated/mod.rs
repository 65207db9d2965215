//! What the chosen experts gave, and what the shared one did, as much of it as its
//! gate lets through.
//!
//! Upstream: `sglang/srt/models/qwen2_moe.py` (`_forward_shared_experts`).

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "add_gated", body: include_str!("body.inc") };

/// The launch for `rows` rows of `width`.
///
/// # Errors
/// Rows that are not a multiple of 16 bytes.
pub fn call(rows: usize, width: usize, dtype: Dtype) -> Result<Call, KernelError> {
    shapes::pack_a_thread(&KERNEL, [rows, width], dtype, &[])
}

/// Whether the kernel knows rows of `width`.
pub fn supports(width: usize, dtype: Dtype) -> bool {
    shapes::has_packs(width, dtype)
}

/// `x + values * sigmoid(gates)`: `x` and `values` `[rows, width]`, `gates`
/// `[rows, 1]`, of one element type.
///
/// # Errors
/// Shapes or types that do not fit, or an error of MLX.
pub fn add_gated(
    kernels: &Kernels,
    x: &Array,
    values: &Array,
    gates: &Array,
) -> Result<Array, KernelError> {
    let [rows, width] = shapes::matrix(KERNEL.name, "a rank of x", x)?;
    shapes::check(KERNEL.name, "values", values, &[rows, width])?;
    shapes::check(KERNEL.name, "gates", gates, &[rows, 1])?;
    shapes::check_dtype(x.dtype(), &[values, gates])?;
    let call = call(rows, width, x.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[x, values, gates])?))
}
