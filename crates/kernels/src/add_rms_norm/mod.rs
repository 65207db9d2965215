//! Adds a layer's result to the residual stream and normalizes the sum, in one
//! launch.
//!
//! Upstream: `sglang/srt/layers/layernorm.py` (`fused_add_rmsnorm`).

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "add_rms_norm", body: include_str!("body.inc") };

/// The launch for `rows` rows of `width`.
///
/// # Errors
/// Rows that are not a multiple of 16 bytes, or longer than 16 packs of them for
/// each of 1024 threads.
pub fn call(rows: usize, width: usize, dtype: Dtype, eps: f32) -> Result<Call, KernelError> {
    let size = 16 / dtype.size_in_bytes();
    let packs = width / size;
    let threads = packs.next_multiple_of(32).min(if packs > 2048 { 1024 } else { 256 });
    if !width.is_multiple_of(size) || width == 0 || packs > 16 * threads {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a row", size: width });
    }
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", dtype)],
        constants: vec![
            ("WIDTH", width.into()),
            ("PACKS", packs.div_ceil(threads).into()),
            ("SIMDGROUPS", (threads / 32).into()),
            ("EPS", eps.into()),
        ],
        groups: [rows, 1, 1],
        threads,
        outputs: vec![(vec![rows, width], dtype), (vec![rows, width], dtype)],
    })
}

/// Whether the kernel knows rows of this width.
pub fn supports(width: usize, dtype: Dtype) -> bool {
    dtype.is_float() && call(1, width, dtype, 0.0).is_ok()
}

/// `hidden + delta`, and its RMS norm times `weight`. All `[rows, width]`, the
/// weight `[width]`, of one element type.
///
/// # Errors
/// Shapes that do not fit each other, or an error of MLX.
pub fn add_rms_norm(
    kernels: &Kernels,
    hidden: &Array,
    delta: &Array,
    weight: &Array,
    eps: f32,
) -> Result<(Array, Array), KernelError> {
    let [rows, width] = *hidden.shape() else {
        let size = hidden.ndim();
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a rank of hidden", size });
    };
    shapes::check(KERNEL.name, "delta", delta, &[rows, width])?;
    shapes::check(KERNEL.name, "weight", weight, &[width])?;
    for array in [delta, weight] {
        if array.dtype() != hidden.dtype() {
            return Err(KernelError::ElementType { dtype: array.dtype() });
        }
    }
    let call = call(rows, width, hidden.dtype(), eps)?;
    let mut outputs = kernels.run(&call, &[hidden, delta, weight])?;
    let normed = outputs.pop();
    Ok(normed.map(|normed| (shapes::single(outputs), normed)).expect("MLX gives both outputs"))
}
