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
    let [rows, width] = *x.shape() else {
        let size = x.ndim();
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a rank of x", size });
    };
    shapes::check(KERNEL.name, "values", values, &[rows, width])?;
    shapes::check(KERNEL.name, "gates", gates, &[rows, 1])?;
    for array in [values, gates] {
        if array.dtype() != x.dtype() {
            return Err(KernelError::ElementType { dtype: array.dtype() });
        }
    }
    let call = call(rows, width, x.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[x, values, gates])?))
}
