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
    shapes::pack_a_thread(&KERNEL, [rows, width], dtype, &[("TOP_K", top_k)])
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
    let [num_slots, width] = shapes::matrix(KERNEL.name, "a rank of slots", slots)?;
    shapes::check(KERNEL.name, "weights", weights, &[num_slots])?;
    let call = call(num_slots / top_k.max(1), width, top_k, slots.dtype())?;
    Ok(shapes::single(kernels.run(&call, &[slots, weights])?))
}
