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

/// Whether the kernel knows rows of `width`.
pub fn supports(width: usize, dtype: Dtype) -> bool {
    dtype.is_float() && call(1, width, dtype).is_ok()
}

/// `x` (`[rows, width]`) `+ bias` (`[width]`), of one element type.
///
/// # Errors
/// Shapes or types that do not fit, or an error of MLX.
pub fn add_bias(kernels: &Kernels, x: &Array, bias: &Array) -> Result<Array, KernelError> {
    let [rows, width] = *x.shape() else {
        let size = x.ndim();
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a rank of x", size });
    };
    shapes::check(KERNEL.name, "bias", bias, &[width])?;
    if bias.dtype() != x.dtype() {
        return Err(KernelError::ElementType { dtype: bias.dtype() });
    }
    let call = call(rows, width, x.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[x, bias])?))
}
