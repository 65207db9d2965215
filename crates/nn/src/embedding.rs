//! Token embedding. A packed one stays packed: rows are unpacked as they are
//! gathered.
//!
//! Upstream: `sglang/srt/layers/vocab_parallel_embedding.py`.

use kernels::{EmbedSpec, Kernels, QmvWeights, embed_packed};
use mlx::{Array, Dtype, Result, quantized::QuantMode};

use crate::{LinearWeight, LmHead, LoadError, QuantSpec, Weights, linear::Matrix, quant::Packed};

/// A row for each token id.
pub struct Embedding {
    rows: Rows,
    dtype: Dtype,
}

enum Rows {
    /// `[num_embeddings, dims]`.
    Dense(Array),
    Packed(Packed),
}

impl Embedding {
    /// Takes `weight` `[num_embeddings, dims]`. `tied`: the same matrix will be
    /// the head, see [`Embedding::as_head`].
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(
        w: Weights,
        num_embeddings: usize,
        dims: usize,
        tied: bool,
    ) -> Result<Self, LoadError> {
        let rows = match w.embedding_parts(num_embeddings, dims, tied)? {
            LinearWeight::Dense(weight) => Rows::Dense(weight),
            LinearWeight::Quantized { weight, scales, biases, spec } => {
                Rows::Packed(Packed { weight, scales, biases, spec })
            }
        };
        Ok(Self { rows, dtype: w.options().compute_dtype })
    }

    /// `[num_tokens]` int32 ids to `[num_tokens, dims]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, ids: &Array) -> Result<Array> {
        match &self.rows {
            Rows::Dense(weight) => weight.take(ids, 0),
            Rows::Packed(packed) => match self.unpack(packed, ids)? {
                Some(rows) => Ok(rows),
                None => packed.rows(ids, self.dtype),
            },
        }
    }

    /// In one launch, if there is a kernel.
    fn unpack(&self, packed: &Packed, ids: &Array) -> Result<Option<Array>> {
        let QuantSpec { group_size, bits, mode: QuantMode::Affine } = packed.spec else {
            return Ok(None);
        };
        let (w, scales) = (&packed.weight, &packed.scales);
        let Some((kernels, biases)) = Kernels::here().zip(packed.biases.as_ref()) else {
            return Ok(None);
        };
        let width = w.dim(1) * 32 / bits;
        let spec =
            EmbedSpec { width, bits, group_size, dtype: self.dtype, scale_dtype: scales.dtype() };
        if !embed_packed::supports(&spec) {
            return Ok(None);
        }
        let weights = QmvWeights { w, scales, biases };
        Ok(Some(embed_packed(&kernels, &spec, ids, &weights)?))
    }

    /// The head of a model that ties it to its embedding. Shares the memory.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn as_head(&self) -> Result<LmHead, LoadError> {
        Ok(LmHead::tied(match &self.rows {
            Rows::Dense(weight) => Matrix::new(LinearWeight::Dense(weight.clone()))?,
            Rows::Packed(packed) => Matrix::Packed(packed.clone()),
        }))
    }
}
