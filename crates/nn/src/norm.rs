//! Norms of rows: by their root mean square, or by mean and variance.
//!
//! Upstream: `sglang/srt/layers/layernorm.py`.

use std::rc::Rc;

use kernels::{Kernels, add_rms_norm, rms_norm};
use mlx::{Array, Result, fast};

use crate::{LoadError, Weights, device::on_cpu};

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

    /// Takes `weight` `[dims]`; `is_above_one` if the checkpoint has what is added to one
    /// and the MLX format has all of it.
    ///
    /// # Errors
    /// As for [`RmsNorm::load`].
    pub fn load_either(
        w: Weights,
        dims: usize,
        eps: f32,
        is_above_one: bool,
    ) -> Result<Self, LoadError> {
        match is_above_one {
            true => Ok(Self { weight: w.take_above_one(dims)?, eps }),
            false => Self::load(w, dims, eps),
        }
    }

    /// Takes `weight` `[dims]` as what is added to one: Gemma's.
    ///
    /// Upstream: `GemmaRMSNorm`.
    ///
    /// # Errors
    /// As for [`RmsNorm::load`].
    pub fn load_above_one(w: Weights, dims: usize, eps: f32) -> Result<Self, LoadError> {
        let weight = w.take("weight", &[dims])?.add_scalar(1.0)?;
        weight.eval()?;
        Ok(Self { weight, eps })
    }

    /// With a weight `[dims]` that is no tensor of the checkpoint.
    pub fn with_weight(weight: Array, eps: f32) -> Self {
        Self { weight, eps }
    }

    /// Weight `[dims]`, for kernels that norm by themselves.
    pub fn weight(&self) -> &Array {
        &self.weight
    }

    /// What keeps the divisor from zero.
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// `[num_tokens, dims]` to the same.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if on_cpu()? {
            return kernels::cpu::rms_norm(x, &self.weight, self.eps);
        }
        if let Some(kernels) = self.gpu_kernels(x, x) {
            return Ok(rms_norm(&kernels, x, &self.weight, self.eps)?);
        }
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
        let Some(delta) = delta else {
            return Ok((hidden.clone(), self.forward(hidden)?));
        };
        if on_cpu()? {
            return kernels::cpu::add_rms_norm(hidden, delta, &self.weight, self.eps);
        }
        if let Some(kernels) = self.gpu_kernels(hidden, delta) {
            return Ok(add_rms_norm(&kernels, hidden, delta, &self.weight, self.eps)?);
        }
        let hidden = hidden.add(delta)?;
        let normed = self.forward(&hidden)?;
        Ok((hidden, normed))
    }

    /// If our kernels know these rows.
    fn gpu_kernels(&self, hidden: &Array, delta: &Array) -> Option<Rc<Kernels>> {
        let dtype = hidden.dtype();
        let is_known = hidden.ndim() == 2
            && (delta.dtype(), self.weight.dtype()) == (dtype, dtype)
            && add_rms_norm::supports(hidden.dim(1), dtype);
        is_known.then(Kernels::here).flatten()
    }
}

/// `(x - mean(x)) / sd(x) * weight + bias` over the last dimension.
pub struct LayerNorm {
    /// `[dims]`.
    weight: Array,
    /// `[dims]`.
    bias: Option<Array>,
    eps: f32,
}

impl LayerNorm {
    /// Takes `weight` `[dims]`; there is no bias (Cohere's).
    ///
    /// # Errors
    /// The tensor is missing or of another shape.
    pub fn load(w: Weights, dims: usize, eps: f32) -> Result<Self, LoadError> {
        Ok(Self { weight: w.take("weight", &[dims])?, bias: None, eps })
    }

    /// Takes `weight` and `bias`, `[dims]` each.
    ///
    /// # Errors
    /// As for [`LayerNorm::load`].
    pub fn load_biased(w: Weights, dims: usize, eps: f32) -> Result<Self, LoadError> {
        Ok(Self { bias: Some(w.take("bias", &[dims])?), ..Self::load(w, dims, eps)? })
    }

    /// `[num_tokens, dims]` to the same.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        fast::layer_norm(x, Some(&self.weight), self.bias.as_ref(), self.eps)
    }
}
