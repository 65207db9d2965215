//! Products of a few rows with affine-quantized weights: every weight is read
//! once for all rows. For decode batches of 2 to 16, where MLX reads the weights
//! again for each row (older Apple GPUs) or takes a slow path (row counts on CUDA
//! that are no multiple of 8).
//!
//! Upstream: none; SGLang's kernels of this kind are for other formats.

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "qmv_batch", body: include_str!("body.inc") };

/// Most rows.
pub const MAX_ROWS: usize = 16;
const SIMDGROUPS: usize = 4;
/// Rows of the weights that a simdgroup takes. Their sums, one for each row of x,
/// stay in registers.
const OUTPUTS: usize = 4;

/// What the kernel knows of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QmvSpec {
    /// Rows of x, up to [`MAX_ROWS`].
    pub rows: usize,
    /// Columns of x; a multiple of the group size.
    pub inputs: usize,
    /// Rows of the weights.
    pub outputs: usize,
    /// 4 or 8.
    pub bits: usize,
    /// Weights of a scale: 32, 64 or 128.
    pub group_size: usize,
    /// Of x and the result.
    pub dtype: Dtype,
    /// Of scales and biases.
    pub scale_dtype: Dtype,
}

impl QmvSpec {
    /// What all products ask of their sizes.
    pub(crate) fn check(&self, kernel: &'static str) -> Result<(), KernelError> {
        let refuse = |what, size| Err(KernelError::Size { kernel, what, size });
        if ![4, 8].contains(&self.bits) {
            return refuse("a weight in bits", self.bits);
        }
        if ![32, 64, 128].contains(&self.group_size) {
            return refuse("a group", self.group_size);
        }
        if self.rows == 0 {
            return refuse("a number of rows", self.rows);
        }
        if self.inputs == 0 || !self.inputs.is_multiple_of(self.group_size) {
            return refuse("a row", self.inputs);
        }
        Ok(())
    }
}

/// Weights as MLX packs them.
#[derive(Debug, Clone, Copy)]
pub struct QmvWeights<'a> {
    /// `[outputs, inputs * bits / 32]` uint32.
    pub w: &'a Array,
    /// `[outputs, inputs / group_size]`.
    pub scales: &'a Array,
    /// As `scales`.
    pub biases: &'a Array,
}

/// Whether the kernel knows this product.
pub fn supports(spec: &QmvSpec) -> bool {
    spec.dtype.is_float() && spec.scale_dtype.is_float() && check(spec).is_ok()
}

/// The launch.
///
/// # Errors
/// A size that the kernel does not know.
pub fn call(spec: &QmvSpec) -> Result<Call, KernelError> {
    check(spec)?;
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", spec.dtype.into()), ("S", spec.scale_dtype.into())],
        constants: vec![
            ("M", spec.rows.into()),
            ("K", spec.inputs.into()),
            ("N", spec.outputs.into()),
            ("BITS", spec.bits.into()),
            ("GROUP_SIZE", spec.group_size.into()),
            ("OUTPUTS", OUTPUTS.into()),
            ("SIMDGROUPS", SIMDGROUPS.into()),
        ],
        groups: [spec.outputs.div_ceil(OUTPUTS * SIMDGROUPS), 1, 1],
        threads: 32 * SIMDGROUPS,
        outputs: vec![(vec![spec.rows, spec.outputs], spec.dtype)],
    })
}

fn check(spec: &QmvSpec) -> Result<(), KernelError> {
    spec.check(KERNEL.name)?;
    if spec.rows > MAX_ROWS {
        let (what, size) = ("a number of rows", spec.rows);
        return Err(KernelError::Size { kernel: KERNEL.name, what, size });
    }
    Ok(())
}

/// Whether the arrays are those that the spec describes. `outer` are dimensions of
/// the weights before theirs.
pub(crate) fn check_weights(
    kernel: &'static str,
    spec: &QmvSpec,
    outer: &[usize],
    x: &Array,
    weights: &QmvWeights<'_>,
) -> Result<(), KernelError> {
    let matrix = |columns| [outer, &[spec.outputs, columns]].concat();
    let groups = matrix(spec.inputs / spec.group_size);
    shapes::check(kernel, "x", x, &[spec.rows, spec.inputs])?;
    shapes::check(kernel, "w", weights.w, &matrix(spec.inputs * spec.bits / 32))?;
    shapes::check(kernel, "scales", weights.scales, &groups)?;
    shapes::check(kernel, "biases", weights.biases, &groups)?;
    let expected = [spec.dtype, spec.scale_dtype, spec.scale_dtype];
    for (array, expected) in [x, weights.scales, weights.biases].into_iter().zip(expected) {
        if array.dtype() != expected {
            return Err(KernelError::ElementType { dtype: array.dtype() });
        }
    }
    Ok(())
}

/// `x` (`[rows, inputs]`) times the transposed weights: `[rows, outputs]`.
///
/// # Errors
/// Shapes that do not fit the spec, a size that the kernel does not know, or an
/// error of MLX.
pub fn qmv_batch(
    kernels: &Kernels,
    spec: &QmvSpec,
    x: &Array,
    weights: &QmvWeights<'_>,
) -> Result<Array, KernelError> {
    let call = call(spec)?;
    check_weights(KERNEL.name, spec, &[], x, weights)?;
    let arrays = [x, weights.w, weights.scales, weights.biases];
    Ok(shapes::single(kernels.run(&call, &arrays)?))
}
