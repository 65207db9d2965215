//! Linear layers, dense or packed: the checkpoint decides, models do not know.
//!
//! Upstream: `sglang/srt/layers/linear.py`.

use kernels::{Kernels, add_bias};
use mlx::{Array, Error, Result};

use crate::{LinearWeight, LoadError, Weights, device::on_cpu, quant::Packed};

/// A matrix that is multiplied from the right.
#[derive(Clone)]
pub(crate) enum Matrix {
    /// `[in_dims, out_dims]`: a view of the rows as stored.
    Dense(Array),
    Packed(Packed),
}

impl Matrix {
    pub(crate) fn new(weight: LinearWeight) -> Result<Self> {
        Ok(match weight {
            LinearWeight::Dense(weight) => Self::Dense(weight.transpose(&[1, 0])?),
            LinearWeight::Quantized { weight, scales, biases, spec } => {
                Self::Packed(Packed { weight, scales, biases, spec })
            }
        })
    }

    fn matmul(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(weight) => x.matmul(weight),
            Self::Packed(packed) => packed.matmul(x),
        }
    }
}

/// `y = x wᵀ + b` over `[num_tokens, in_dims]`.
#[derive(Clone)]
pub struct Linear {
    weight: Matrix,
    /// `[out_dims]`.
    bias: Option<Array>,
}

impl Linear {
    /// Takes `weight` `[out_dims, in_dims]`, packed if the checkpoint has it
    /// so, and `bias` if the model has one.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(
        w: Weights,
        in_dims: usize,
        out_dims: usize,
        bias: bool,
    ) -> Result<Self, LoadError> {
        let weight = Matrix::new(w.linear_parts(in_dims, out_dims)?)?;
        let bias = bias.then(|| w.take("bias", &[out_dims])).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Without a bias.
    pub(crate) fn from_weight(weight: LinearWeight) -> Result<Self> {
        Ok(Self { weight: Matrix::new(weight)?, bias: None })
    }

    /// `[num_tokens, in_dims]` to `[num_tokens, out_dims]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        debug_assert_eq!(x.ndim(), 2, "a batch axis makes packed matmuls many times slower");
        let y = self.weight.matmul(x)?;
        match &self.bias {
            Some(bias) => with_bias(&y, bias),
            None => Ok(y),
        }
    }
}

/// `y` `[num_tokens, out_dims]` with `bias` `[out_dims]`.
fn with_bias(y: &Array, bias: &Array) -> Result<Array> {
    if !on_cpu()?
        && bias.dtype() == y.dtype()
        && add_bias::supports(y.dim(1), y.dtype())
        && let Some(kernels) = Kernels::here()
    {
        return Ok(add_bias(&kernels, y, bias)?);
    }
    y.add(bias)
}

/// Linear layers that read the same input, as one product: their rows are
/// stacked while loading. Layers that are packed in different ways stay apart.
///
/// Upstream: `QKVParallelLinear`, `MergedColumnParallelLinear`.
#[derive(Clone)]
pub struct MergedLinear {
    parts: Vec<Linear>,
}

impl MergedLinear {
    /// Takes the layers at `parts`, each with its output width, in this order.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(parts: &[(Weights, usize)], in_dims: usize, bias: bool) -> Result<Self, LoadError> {
        let mut weights = Vec::with_capacity(parts.len());
        let mut biases = Vec::new();
        for (w, out_dims) in parts {
            weights.push(w.linear_parts(in_dims, *out_dims)?);
            if bias {
                biases.push(w.take("bias", &[*out_dims])?);
            }
        }
        Ok(Self::from_weights(weights, biases)?)
    }

    /// Of matrices, with a bias for each or none.
    pub(crate) fn from_weights(weights: Vec<LinearWeight>, biases: Vec<Array>) -> Result<Self> {
        let linear = |weight: LinearWeight, bias: Option<Array>| {
            Ok::<_, Error>(Linear { weight: Matrix::new(weight)?, bias })
        };
        let parts = match LinearWeight::stacked(&weights)? {
            Some(weight) => {
                drop(weights);
                let all: Vec<&Array> = biases.iter().collect();
                let bias = (!all.is_empty()).then(|| Array::concatenate(&all, 0)).transpose()?;
                vec![linear(weight, bias)?]
            }
            None => {
                let mut biases = biases.into_iter();
                weights
                    .into_iter()
                    .map(|weight| linear(weight, biases.next()))
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(Self { parts })
    }

    /// `[num_tokens, in_dims]` to `[num_tokens, out_dims]`, the outputs of all
    /// layers side by side.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        if let [only] = self.parts.as_slice() {
            return only.forward(x);
        }
        let outs = self.parts.iter().map(|part| part.forward(x)).collect::<Result<Vec<_>>>()?;
        Array::concatenate(&outs.iter().collect::<Vec<_>>(), -1)
    }
}

/// The vocabulary matrix: hidden states to logits.
#[derive(Clone)]
pub struct LmHead {
    weight: Matrix,
}

impl LmHead {
    /// Takes `weight` `[vocab_size, hidden_size]`.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(w: Weights, hidden_size: usize, vocab_size: usize) -> Result<Self, LoadError> {
        Ok(Self { weight: Matrix::new(w.linear_parts(hidden_size, vocab_size)?)? })
    }

    pub(crate) fn tied(weight: Matrix) -> Self {
        Self { weight }
    }

    /// `[num_sampled, hidden_size]` to `[num_sampled, vocab_size]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, hidden: &Array) -> Result<Array> {
        self.weight.matmul(hidden)
    }
}

#[cfg(test)]
mod tests;
