//! Which experts take a token, and with what weight: softmax, then the top k.
//!
//! Upstream: `sglang/srt/layers/moe/topk.py` (`topk_softmax`).

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "moe_topk", body: include_str!("body.inc") };

/// Most experts: what the registers of a simdgroup hold.
pub const MAX_EXPERTS: usize = 512;
/// Most experts of a token.
pub const MAX_TOP_K: usize = 32;

/// What the kernel knows of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopKSpec {
    /// Experts.
    pub num_experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// Whether the weights of a token's experts add up to one.
    pub renormalize: bool,
}

/// Whether the kernel knows this router.
pub fn supports(spec: &TopKSpec, dtype: Dtype) -> bool {
    dtype.is_float() && call(spec, 1, dtype).is_ok()
}

/// The launch for `rows` tokens.
///
/// # Errors
/// More experts than the kernel knows.
pub fn call(spec: &TopKSpec, rows: usize, dtype: Dtype) -> Result<Call, KernelError> {
    let refuse = |what, size| Err(KernelError::Size { kernel: KERNEL.name, what, size });
    if spec.num_experts == 0 || spec.num_experts > MAX_EXPERTS {
        return refuse("a number of experts", spec.num_experts);
    }
    if spec.top_k == 0 || spec.top_k > MAX_TOP_K.min(spec.num_experts) {
        return refuse("a number of experts of a token", spec.top_k);
    }
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", dtype.into())],
        constants: vec![
            ("NUM_EXPERTS", spec.num_experts.into()),
            ("TOP_K", spec.top_k.into()),
            ("PER_LANE", spec.num_experts.div_ceil(32).into()),
            ("RENORMALIZE", spec.renormalize.into()),
        ],
        groups: [rows, 1, 1],
        threads: 32,
        outputs: vec![
            (vec![rows * spec.top_k], Dtype::Int32),
            (vec![rows * spec.top_k], Dtype::Float32),
        ],
    })
}

/// Experts (int32) and weights (f32) of each token, `[rows * top_k]` both, from the
/// router's `logits`, `[rows, num_experts]`.
///
/// # Errors
/// Shapes that do not fit, more experts than the kernel knows, or an error of MLX.
pub fn moe_topk(
    kernels: &Kernels,
    spec: &TopKSpec,
    logits: &Array,
) -> Result<(Array, Array), KernelError> {
    let rows = logits.shape().first().copied().unwrap_or(0);
    crate::shapes::check(KERNEL.name, "logits", logits, &[rows, spec.num_experts])?;
    let mut outputs = kernels.run(&call(spec, rows, logits.dtype())?, &[logits])?;
    let weights = outputs.pop();
    Ok((outputs.pop()).zip(weights).expect("MLX gives both outputs"))
}
