//! The bias of a linear layer: a kernel, since a step that is replayed as a graph
//! has kernels of ours alone.
//!
//! Upstream: `sglang/srt/layers/linear.py`.

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "add_bias", body: include_str!("body.inc") };

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

/// `x` (`[rows, width]`) `+ bias` (`[width]`), of one element type.
///
/// # Errors
/// Shapes or types that do not fit, or an error of MLX.
pub fn add_bias(kernels: &Kernels, x: &Array, bias: &Array) -> Result<Array, KernelError> {
    let [rows, width] = shapes::matrix(KERNEL.name, "a rank of x", x)?;
    shapes::check(KERNEL.name, "bias", bias, &[width])?;
    shapes::check_dtype(x.dtype(), &[bias])?;
    let call = call(rows, width, x.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[x, bias])?))
}
