//! Packed matrices: what each way of packing can do.
//!
//! All four of MLX's modes share its packed matmul; a method of another shape
//! (a lookup table, an activation format) gets its own file and entry.
//!
//! Upstream: `sglang/srt/layers/quantization/`.

use mlx::{Array, Dtype, Result, quantized::QuantMode};

use crate::{LinearWeight, QuantSpec};

mod in_flight;
mod mlx_quant;
mod registry;

pub(crate) use in_flight::count;
pub use in_flight::{MARK_BYTES, end_step};
pub use registry::{METHODS, QuantMethod, method};

/// A packed `[out_dims, in_dims]` matrix.
#[derive(Clone)]
pub struct Packed {
    /// `[out_dims, in_dims * bits / 32]`, u32.
    pub weight: Array,
    /// `[out_dims, in_dims / group_size]`.
    pub scales: Array,
    /// As `scales`; only the affine mode has them.
    pub biases: Option<Array>,
    /// How the rows are packed.
    pub spec: QuantSpec,
}

impl Packed {
    /// `x @ wᵀ`, `[num_tokens, in_dims]` to `[num_tokens, out_dims]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn matmul(&self, x: &Array) -> Result<Array> {
        (method(self.spec.mode).matmul)(self, x)
    }

    /// The matrix, or the stack of them, in `dtype` and computed in it: what a packed
    /// product of that type sees. Lazy.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn dequantize(&self, dtype: Dtype) -> Result<Array> {
        let weight = LinearWeight::Quantized {
            weight: self.weight.clone(),
            scales: self.scales.clone(),
            biases: self.biases.clone(),
            spec: self.spec,
        };
        weight.dequantize_as(dtype)
    }

    /// Rows `ids` `[n]`, unpacked: `[n, in_dims]` in `dtype`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn rows(&self, ids: &Array, dtype: Dtype) -> Result<Array> {
        // Scales may be narrower than `dtype`; what they scale must not be.
        let take = |part: &Array| match part.dtype().is_float() {
            true => part.take(ids, 0)?.astype(dtype),
            false => part.take(ids, 0),
        };
        let biases = self.biases.as_ref().map(take).transpose()?;
        let rows = LinearWeight::Quantized {
            weight: self.weight.take(ids, 0)?,
            scales: take(&self.scales)?,
            biases,
            spec: self.spec,
        };
        rows.dequantize_as(Dtype::Float32)?.astype(dtype)
    }
}

fn mode_name(mode: QuantMode) -> &'static str {
    match mode {
        QuantMode::Affine => "affine",
        QuantMode::Mxfp4 => "mxfp4",
        QuantMode::Mxfp8 => "mxfp8",
        QuantMode::Nvfp4 => "nvfp4",
    }
}
