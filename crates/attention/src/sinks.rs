//! Attention sinks: a score of each head that takes weight in the softmax and gives no
//! value, so that a head may attend to nothing (gpt-oss; Xiao et al. 2023 have a token in
//! its place). However the keys of a query are divided, its sink counts once.
//!
//! Upstream: `sinks` of `RadixAttention` in `sglang/srt/models/gpt_oss.py`.

use mlx::{Array, Dtype, Result};

/// The sinks of one layer, on the device and for kernels that want them on the host.
pub struct Sinks {
    /// `[num_heads]` f32.
    array: Array,
    values: Vec<f32>,
}

impl Sinks {
    /// From scores `[num_heads]`, floating-point. They are not scaled as products of
    /// queries and keys are.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn new(scores: &Array) -> Result<Self> {
        let array = scores.astype(Dtype::Float32)?;
        let values = array.to_vec()?;
        Ok(Self { array, values })
    }

    /// `[num_heads]` f32.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// One for each head.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
