//! Packed matrices: rows of small integers or floats with a scale per group.

use std::{fmt, str::FromStr};

use mlx_sys::{
    mlxs_dequantize, mlxs_gather_mm, mlxs_gather_qmm, mlxs_quantize, mlxs_quantized_matmul,
};

use crate::{
    Array, Dtype, Error, Result,
    handle::{give, give_vec, int, maybe, text},
};

/// How numbers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantMode {
    /// `scale * q + bias`, bits 2 to 6 and 8, groups of 32, 64 or 128.
    Affine,
    /// 4-bit floats, groups of 32, power-of-two scales.
    Mxfp4,
    /// 8-bit floats, groups of 32, power-of-two scales.
    Mxfp8,
    /// 4-bit floats, groups of 16, 8-bit float scales.
    Nvfp4,
}

impl QuantMode {
    const ALL: [Self; 4] = [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// The name in a model's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }
}

impl fmt::Display for QuantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for QuantMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::new("QuantMode", format!("unknown mode `{name}` (known: {known})"))
        })
    }
}

/// A packed matrix.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// `[..., rows, columns * bits / 32]` uint32.
    pub weight: Array,
    /// `[..., rows, columns / group_size]`.
    pub scales: Array,
    /// As `scales`, in the affine mode only.
    pub biases: Option<Array>,
}

/// Packs the last axis of `w`.
///
/// # Errors
/// A combination of group size, bits and mode that MLX lacks, or a last axis
/// that is no multiple of the group size.
pub fn quantize(w: &Array, group_size: usize, bits: usize, mode: QuantMode) -> Result<Quantized> {
    const OP: &str = "quantize";
    let (group_size, bits) = (int(OP, group_size)?, int(OP, bits)?);
    let (name, len) = text(mode.name());
    // SAFETY: `w` is alive and the name has `len` bytes.
    let parts =
        give_vec(OP, |out| unsafe { mlxs_quantize(out, w.as_raw(), group_size, bits, name, len) })?;
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(weight), Some(scales), biases) => Ok(Quantized { weight, scales, biases }),
        _ => Err(Error::new(OP, "MLX gave no scales")),
    }
}

/// The matrix that was packed, up to rounding, in `dtype` or what MLX chooses
/// (the type of the scales in the affine mode, else bf16).
///
/// # Errors
/// The parts do not fit each other.
#[expect(clippy::too_many_arguments, reason = "the parts of a packed matrix and how to read them")]
pub fn dequantize(
    weight: &Array,
    scales: &Array,
    biases: Option<&Array>,
    group_size: usize,
    bits: usize,
    mode: QuantMode,
    dtype: Option<Dtype>,
) -> Result<Array> {
    const OP: &str = "dequantize";
    let (group_size, bits) = (int(OP, group_size)?, int(OP, bits)?);
    let (name, len) = text(mode.name());
    // SAFETY: all arrays are alive and the name has `len` bytes.
    give(OP, |out| unsafe {
        mlxs_dequantize(
            out,
            weight.as_raw(),
            scales.as_raw(),
            maybe(biases),
            group_size,
            bits,
            name,
            len,
            dtype.map_or(-1, Dtype::code),
        )
    })
}

/// `x @ w.T` if `transpose`, else `x @ w`, of a packed `w`. Keep `x`
/// two-dimensional, `[num_tokens, dims]`: a batch of single rows falls on a
/// path that is many times slower.
///
/// # Errors
/// The parts do not fit `x` or each other.
#[expect(clippy::too_many_arguments, reason = "the parts of a packed matrix and how to read them")]
pub fn quantized_matmul(
    x: &Array,
    weight: &Array,
    scales: &Array,
    biases: Option<&Array>,
    transpose: bool,
    group_size: usize,
    bits: usize,
    mode: QuantMode,
) -> Result<Array> {
    const OP: &str = "quantized_matmul";
    let (group_size, bits) = (int(OP, group_size)?, int(OP, bits)?);
    let (name, len) = text(mode.name());
    // SAFETY: all arrays are alive and the name has `len` bytes.
    give(OP, |out| unsafe {
        mlxs_quantized_matmul(
            out,
            x.as_raw(),
            weight.as_raw(),
            scales.as_raw(),
            maybe(biases),
            transpose,
            group_size,
            bits,
            name,
            len,
        )
    })
}

/// `a @ b` for matrices of a stack `b` (`[stack, k, n]`), of which `rhs_indices` picks
/// one per row, and `lhs_indices` the matrix of `a`. `sorted_indices` promises that
/// `rhs_indices` ascend.
///
/// # Errors
/// Shapes that do not fit. Indices are not checked.
pub fn gather_mm(
    a: &Array,
    b: &Array,
    lhs_indices: Option<&Array>,
    rhs_indices: Option<&Array>,
    sorted_indices: bool,
) -> Result<Array> {
    // SAFETY: all arrays are alive.
    give("gather_mm", |out| unsafe {
        let (lhs, rhs) = (maybe(lhs_indices), maybe(rhs_indices));
        mlxs_gather_mm(out, a.as_raw(), b.as_raw(), lhs, rhs, sorted_indices)
    })
}

/// As [`quantized_matmul`] on a stack of packed matrices (`[stack, ...]`), of
/// which `rhs_indices` picks one per row, and `lhs_indices` the row of `x`.
/// `sorted_indices` promises that `rhs_indices` ascend.
///
/// # Errors
/// The parts do not fit `x` or each other. Indices are not checked.
#[expect(clippy::too_many_arguments, reason = "the parts of a packed matrix and how to read them")]
pub fn gather_qmm(
    x: &Array,
    weight: &Array,
    scales: &Array,
    biases: Option<&Array>,
    lhs_indices: Option<&Array>,
    rhs_indices: Option<&Array>,
    transpose: bool,
    group_size: usize,
    bits: usize,
    mode: QuantMode,
    sorted_indices: bool,
) -> Result<Array> {
    const OP: &str = "gather_qmm";
    let (group_size, bits) = (int(OP, group_size)?, int(OP, bits)?);
    let (name, len) = text(mode.name());
    // SAFETY: all arrays are alive and the name has `len` bytes.
    give(OP, |out| unsafe {
        mlxs_gather_qmm(
            out,
            x.as_raw(),
            weight.as_raw(),
            scales.as_raw(),
            maybe(biases),
            maybe(lhs_indices),
            maybe(rhs_indices),
            transpose,
            group_size,
            bits,
            name,
            len,
            sorted_indices,
        )
    })
}
