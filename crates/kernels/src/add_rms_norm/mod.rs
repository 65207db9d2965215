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
    norm_call(&KERNEL, [rows, width], dtype, eps, 2)
}

/// The launch of a kernel that norms rows and gives `num_outputs` arrays of their shape.
///
/// # Errors
/// As for [`call`].
pub(crate) fn norm_call(
    kernel: &'static Kernel,
    [rows, width]: [usize; 2],
    dtype: Dtype,
    eps: f32,
    num_outputs: usize,
) -> Result<Call, KernelError> {
    let Some((packs, threads)) = packs_and_threads(width, dtype) else {
        return Err(KernelError::Size { kernel: kernel.name, what: "a row", size: width });
    };
    Ok(Call {
        kernel,
        types: vec![("T", dtype.into())],
        constants: vec![
            ("WIDTH", width.into()),
            ("PACKS", packs.div_ceil(threads).into()),
            ("SIMDGROUPS", (threads / 32).into()),
            ("EPS", eps.into()),
        ],
        groups: [rows, 1, 1],
        threads,
        outputs: vec![(vec![rows, width], dtype); num_outputs],
    })
}

/// Packs of a row and threads that share them, if the kernel knows such rows.
fn packs_and_threads(width: usize, dtype: Dtype) -> Option<(usize, usize)> {
    let packs = shapes::packs(width, dtype)?;
    let threads = packs.next_multiple_of(32).min(if packs > 2048 { 1024 } else { 256 });
    (packs <= 16 * threads).then_some((packs, threads))
}

/// Whether the kernel knows rows of this width.
pub fn supports(width: usize, dtype: Dtype) -> bool {
    dtype.is_float() && packs_and_threads(width, dtype).is_some()
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
    let [rows, width] = shapes::matrix(KERNEL.name, "a rank of hidden", hidden)?;
    shapes::check(KERNEL.name, "delta", delta, &[rows, width])?;
    shapes::check(KERNEL.name, "weight", weight, &[width])?;
    shapes::check_dtype(hidden.dtype(), &[delta, weight])?;
    let call = call(rows, width, hidden.dtype(), eps)?;
    let mut outputs = kernels.run(&call, &[hidden, delta, weight])?;
    let normed = outputs.pop();
    Ok(normed.map(|normed| (shapes::single(outputs), normed)).expect("MLX gives both outputs"))
}
