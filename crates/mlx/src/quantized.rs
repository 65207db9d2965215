//! Packed weights: several values in each 32-bit word, with a scale a group.

use std::{ffi::CStr, fmt, str::FromStr};

use crate::{
    array::Array,
    dtype::Dtype,
    error::{Error, Result, check},
};

/// How groups are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuantMode {
    /// value = scale · q + bias.
    Affine,
    /// 4-bit floats, groups of 32 with a power-of-two scale.
    Mxfp4,
    /// 8-bit floats, groups of 32 with a power-of-two scale.
    Mxfp8,
    /// 4-bit floats, groups of 16 with an 8-bit float scale.
    Nvfp4,
}

impl QuantMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// MLX's name.
    pub fn as_str(self) -> &'static str {
        self.c_name().to_str().expect("ASCII")
    }

    fn c_name(self) -> &'static CStr {
        match self {
            Self::Affine => c"affine",
            Self::Mxfp4 => c"mxfp4",
            Self::Mxfp8 => c"mxfp8",
            Self::Nvfp4 => c"nvfp4",
        }
    }
}

impl fmt::Display for QuantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for QuantMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::new("quantization mode", format!("{text:?} is unknown; known are {names}"))
        })
    }
}

/// A packed matrix.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// `[rows, columns * bits / 32]` uint32.
    pub weight: Array,
    /// `[rows, columns / group_size]`.
    pub scales: Array,
    /// Like `scales`; affine only.
    pub biases: Option<Array>,
}

fn optional(array: Option<&Array>) -> *const mlx_sys::smlx_array {
    array.map_or(std::ptr::null(), Array::as_ptr)
}

/// Packs `w` along its last dimension.
///
/// # Errors
/// If the shape or the combination of group size, bits and mode does not fit.
pub fn quantize(w: &Array, group_size: usize, bits: usize, mode: QuantMode) -> Result<Quantized> {
    let op = "quantize";
    let mut out = [std::ptr::null_mut(); 3];
    // SAFETY: a live array, room for three handles, a NUL-terminated name.
    check(op, unsafe {
        mlx_sys::smlx_quantize(
            w.as_ptr(),
            group_size as i32,
            bits as i32,
            mode.c_name().as_ptr(),
            out.as_mut_ptr(),
        )
    })?;
    let [weight, scales, biases] = out.map(Array::from_raw);
    match (weight, scales) {
        (Some(weight), Some(scales)) => Ok(Quantized { weight, scales, biases }),
        _ => Err(Error::new(op, "no arrays came back")),
    }
}

/// The values of a packed matrix, as `dtype`.
///
/// # Errors
/// If shapes and parameters do not fit.
#[expect(clippy::too_many_arguments, reason = "the names and order of MLX's own function")]
pub fn dequantize(
    w: &Array,
    scales: &Array,
    biases: Option<&Array>,
    group_size: usize,
    bits: usize,
    mode: QuantMode,
    dtype: Dtype,
) -> Result<Array> {
    // SAFETY: live arrays or null, a NUL-terminated name.
    Array::build("dequantize", |out| unsafe {
        mlx_sys::smlx_dequantize(
            w.as_ptr(),
            scales.as_ptr(),
            optional(biases),
            group_size as i32,
            bits as i32,
            mode.c_name().as_ptr(),
            dtype.code(),
            out,
        )
    })
}

/// `x @ wᵀ` (or `x @ w`) with packed `w`. Keep `x` two-dimensional: MLX reads the
/// weights again for each entry of further dimensions.
///
/// # Errors
/// If shapes and parameters do not fit.
#[expect(clippy::too_many_arguments, reason = "the names and order of MLX's own function")]
pub fn quantized_matmul(
    x: &Array,
    w: &Array,
    scales: &Array,
    biases: Option<&Array>,
    transpose: bool,
    group_size: usize,
    bits: usize,
    mode: QuantMode,
) -> Result<Array> {
    // SAFETY: live arrays or null, a NUL-terminated name.
    Array::build("quantized_matmul", |out| unsafe {
        mlx_sys::smlx_quantized_matmul(
            x.as_ptr(),
            w.as_ptr(),
            scales.as_ptr(),
            optional(biases),
            transpose,
            group_size as i32,
            bits as i32,
            mode.c_name().as_ptr(),
            out,
        )
    })
}
