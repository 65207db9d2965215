//! How fast each pair of elements turns, for each kind of rope.
//!
//! Computed in f32 with the formulas, and the order of operations, that the
//! fused kernel uses: at position 10 000 a last-bit difference in a frequency
//! shows in the logits.

use mlx::{Array, Dtype, Result};

use super::{RopeConfig, RopeScaling, column, scaling::plain};

pub(super) enum Frequencies {
    /// `base ^ (-2i / dims)`, positions scaled.
    Base { dims: usize, base: f32, scale: f32 },
    /// `[dims / 2]` f32: the *inverse* of each angular frequency, as MLX's
    /// fused kernel takes them.
    Given(Array),
    /// The base grows with the position, beyond the length trained for.
    Dynamic { dims: usize, base: f32, factor: f32, max_position_embeddings: f32 },
}

impl Frequencies {
    pub(super) fn new(dims: usize, config: &RopeConfig) -> Result<Self> {
        let base = config.theta;
        let given = |inverse: Vec<f64>| {
            let inverse: Vec<f32> = inverse.iter().map(|&value| value as f32).collect();
            Array::from_slice(&inverse, &[inverse.len()]).map(Self::Given)
        };
        match config.scaling {
            RopeScaling::Default => Ok(Self::Base { dims, base, scale: 1.0 }),
            RopeScaling::Linear { factor } => Ok(Self::Base { dims, base, scale: 1.0 / factor }),
            RopeScaling::Dynamic { factor } => Ok(Self::Dynamic {
                dims,
                base,
                factor,
                max_position_embeddings: config.max_position_embeddings as f32,
            }),
            RopeScaling::Llama3(ref llama3) => given(llama3.inverse_frequencies(dims, base)),
            RopeScaling::Yarn(ref yarn) => given(yarn.inverse_frequencies(dims, base)),
            RopeScaling::Proportional { factor } => {
                let turning = (dims as f32 * config.partial_rotary_factor) as usize / 2;
                let slowed = plain(dims, base).map(|inverse| f64::from(factor) * inverse);
                let still = std::iter::repeat_n(f64::INFINITY, dims / 2 - turning);
                given(slowed.take(turning).chain(still).collect())
            }
            RopeScaling::Long(ref long) => given(long.inverse_frequencies(dims, base)),
        }
    }

    /// Turns nothing, at any position.
    pub(super) fn still(dims: usize) -> Result<Self> {
        Array::full(&[dims / 2], f32::INFINITY, Dtype::Float32).map(Self::Given)
    }

    /// True if a token's frequencies depend on where it is: no fused kernel
    /// can do that.
    pub(super) fn differ_by_position(&self) -> bool {
        matches!(self, Self::Dynamic { .. })
    }

    /// Base, scale and inverse frequencies for the fused kernel.
    pub(super) fn fused(&self) -> (Option<f32>, f32, Option<&Array>) {
        match self {
            Self::Base { base, scale, .. } => (Some(*base), *scale, None),
            Self::Given(inverse) => (None, 1.0, Some(inverse)),
            Self::Dynamic { base, .. } => (Some(*base), 1.0, None),
        }
    }

    /// `[num_tokens]` int32 to angles `[num_tokens, dims / 2]` f32.
    pub(super) fn angles(&self, positions: &Array) -> Result<Array> {
        let positions = column(positions)?;
        match self {
            Self::Base { dims, base, scale } => {
                let log_base = base.ln() / (dims / 2) as f32;
                let frequencies = steps_down(*dims)?.mul_scalar(log_base)?.exp()?;
                let scaled =
                    if *scale == 1.0 { positions } else { positions.mul_scalar(*scale)? };
                scaled.multiply(&frequencies)
            }
            Self::Given(inverse) => positions.multiply(&inverse.reciprocal()?),
            Self::Dynamic { dims, base, factor, max_position_embeddings } => {
                let trained = Array::full(&[], *max_position_embeddings, Dtype::Float32)?;
                let seq_len = positions.add_scalar(1.0)?.maximum(&trained)?;
                let growth = seq_len
                    .mul_scalar(*factor / *max_position_embeddings)?
                    .add_scalar(1.0 - *factor)?;
                let exponent = *dims as f32 / (*dims as f32 - 2.0);
                // ln(base · growth ^ exponent), for each token.
                let log_base = growth.log()?.mul_scalar(exponent)?.add_scalar(base.ln())?;
                let per_step = log_base.mul_scalar(1.0 / (dims / 2) as f32)?;
                positions.multiply(&per_step.multiply(&steps_down(*dims)?)?.exp()?)
            }
        }
    }
}

/// 0, -1, ... `[dims / 2]` f32.
fn steps_down(dims: usize) -> Result<Array> {
    Array::arange(0.0, -((dims / 2) as f64), -1.0, Dtype::Float32)
}
