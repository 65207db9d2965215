//! RMS norm of rows, for where there is nothing to add first.
//!
//! Upstream: `sglang/srt/layers/layernorm.py` (`rmsnorm`).

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, add_rms_norm, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "rms_norm", body: include_str!("body.inc") };

/// The launch for `rows` rows of `width`.
///
/// # Errors
/// As for [`add_rms_norm`].
pub fn call(rows: usize, width: usize, dtype: Dtype, eps: f32) -> Result<Call, KernelError> {
    add_rms_norm::norm_call(&KERNEL, [rows, width], dtype, eps, 1)
}

/// The norm of `hidden`, `[rows, width]`, times `weight`, `[width]`, of one element
/// type.
///
/// # Errors
/// Shapes that do not fit each other, or an error of MLX.
pub fn rms_norm(
    kernels: &Kernels,
    hidden: &Array,
    weight: &Array,
    eps: f32,
) -> Result<Array, KernelError> {
    let [rows, width] = shapes::matrix(KERNEL.name, "a rank of hidden", hidden)?;
    shapes::check(KERNEL.name, "weight", weight, &[width])?;
    shapes::check_dtype(hidden.dtype(), &[weight])?;
    let call = call(rows, width, hidden.dtype(), eps)?;
    Ok(shapes::single(kernels.run(&call, &[hidden, weight])?))
}
