//! Rows of an affine-quantized embedding, unpacked as they are gathered.
//!
//! Upstream: `sglang/srt/layers/vocab_parallel_embedding.py`; packed ones have no
//! kernel there.

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, QmvWeights, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "embed_packed", body: include_str!("body.inc") };

/// What the kernel knows of an embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbedSpec {
    /// Columns; a multiple of the group size.
    pub width: usize,
    /// 2, 4 or 8.
    pub bits: usize,
    /// Weights of a scale.
    pub group_size: usize,
    /// Of the result.
    pub dtype: Dtype,
    /// Of scales and biases.
    pub scale_dtype: Dtype,
}

/// Whether the kernel knows this packing.
pub fn supports(spec: &EmbedSpec) -> bool {
    call(spec, 1).is_ok()
}

/// The launch for `rows` ids.
///
/// # Errors
/// A packing that the kernel does not know.
pub fn call(spec: &EmbedSpec, rows: usize) -> Result<Call, KernelError> {
    let refuse = |what, size| Err(KernelError::Size { kernel: KERNEL.name, what, size });
    if let Some(dtype) = [spec.dtype, spec.scale_dtype].into_iter().find(|dtype| !dtype.is_float())
    {
        return Err(KernelError::ElementType { dtype });
    }
    if ![2, 4, 8].contains(&spec.bits) {
        return refuse("a weight in bits", spec.bits);
    }
    let words = spec.width * spec.bits / 32;
    if spec.width == 0 || !spec.width.is_multiple_of(spec.group_size.max(32)) {
        return refuse("a row", spec.width);
    }
    let threads = words.next_multiple_of(32).min(256);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", spec.dtype.into()), ("S", spec.scale_dtype.into())],
        constants: vec![
            ("WIDTH", spec.width.into()),
            ("BITS", spec.bits.into()),
            ("GROUP_SIZE", spec.group_size.into()),
        ],
        groups: [words.div_ceil(threads), rows, 1],
        threads,
        outputs: vec![(vec![rows, spec.width], spec.dtype)],
    })
}

/// Rows `ids` (`[n]` int32) of the matrix: `[n, width]`.
///
/// # Errors
/// Shapes that do not fit the spec, a packing that the kernel does not know, or an
/// error of MLX.
pub fn embed_packed(
    kernels: &Kernels,
    spec: &EmbedSpec,
    ids: &Array,
    weights: &QmvWeights<'_>,
) -> Result<Array, KernelError> {
    let rows = ids.size();
    shapes::check(KERNEL.name, "ids", ids, &[rows])?;
    let vocab = weights.w.shape().first().copied().unwrap_or(0);
    shapes::check(KERNEL.name, "w", weights.w, &[vocab, spec.width * spec.bits / 32])?;
    let groups = [vocab, spec.width / spec.group_size];
    shapes::check(KERNEL.name, "scales", weights.scales, &groups)?;
    shapes::check(KERNEL.name, "biases", weights.biases, &groups)?;
    let arrays = [ids, weights.w, weights.scales, weights.biases];
    Ok(shapes::single(kernels.run(&call(spec, rows)?, &arrays)?))
}
