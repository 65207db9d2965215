//! What a token's experts gave, added up by their weights.
//!
//! Upstream: `sglang/srt/layers/moe/fused_moe_triton/` (`moe_sum_reduce`).

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "moe_sum", body: include_str!("body.inc") };

/// The launch for `rows` tokens of `width`.
///
/// # Errors
/// Rows that are not a multiple of 16 bytes.
pub fn call(rows: usize, width: usize, top_k: usize, dtype: Dtype) -> Result<Call, KernelError> {
    let pack = 16 / dtype.size_in_bytes();
    if !width.is_multiple_of(pack) || width == 0 {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a row", size: width });
    }
    let threads = (width / pack).next_multiple_of(32).min(128);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", dtype)],
        constants: vec![("WIDTH", width.into()), ("TOP_K", top_k.into())],
        groups: [(width / pack).div_ceil(threads), rows, 1],
        threads,
        outputs: vec![(vec![rows, width], dtype)],
    })
}

/// `slots` (`[rows * top_k, width]`) by `weights` (`[rows * top_k]` f32) to
/// `[rows, width]`.
///
/// # Errors
/// Shapes that do not fit each other, or an error of MLX.
pub fn moe_sum(
    kernels: &Kernels,
    slots: &Array,
    weights: &Array,
    top_k: usize,
) -> Result<Array, KernelError> {
    let [num_slots, width] = *slots.shape() else {
        let size = slots.ndim();
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a rank of slots", size });
    };
    shapes::check(KERNEL.name, "weights", weights, &[num_slots])?;
    let call = call(num_slots / top_k.max(1), width, top_k, slots.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[slots, weights])?))
}
