//! Linear layers, dense or packed: the checkpoint decides, models do not know.
//!
//! Upstream: `sglang/srt/layers/linear.py`.

use mlx::{Array, Result};

use crate::{LinearWeight, LoadError, Weights, quant::Packed};

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

    /// `[num_tokens, in_dims]` to `[num_tokens, out_dims]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        debug_assert_eq!(x.ndim(), 2, "a batch axis makes packed matmuls many times slower");
        let y = self.weight.matmul(x)?;
        match &self.bias {
            Some(bias) => y.add(bias),
            None => Ok(y),
        }
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
