//! Root-mean-square norm.
//!
//! Upstream: `sglang/srt/layers/layernorm.py`.

use mlx::{Array, Result, fast};

use crate::{LoadError, Weights};

/// `x / rms(x) * weight` over the last dimension.
pub struct RmsNorm {
    /// `[dims]`.
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    /// Takes `weight` `[dims]`.
    ///
    /// # Errors
    /// The tensor is missing or of another shape.
    pub fn load(w: Weights, dims: usize, eps: f32) -> Result<Self, LoadError> {
        Ok(Self { weight: w.take("weight", &[dims])?, eps })
    }

    /// `[num_tokens, dims]` to the same.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        fast::rms_norm(x, Some(&self.weight), self.eps)
    }

    /// Adds what the layer before gave to the residual stream, then norms:
    /// `(hidden + delta, norm(hidden + delta))`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward_residual(
        &self,
        hidden: &Array,
        delta: Option<&Array>,
    ) -> Result<(Array, Array)> {
        let hidden = match delta {
            Some(delta) => hidden.add(delta)?,
            None => hidden.clone(),
        };
        let normed = self.forward(&hidden)?;
        Ok((hidden, normed))
    }
}
