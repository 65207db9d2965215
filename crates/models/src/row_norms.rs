//! Norms of q and k as wide as all their heads, before they rotate.
//!
//! Upstream: `Olmo2Attention` in `sglang/srt/models/olmo2.py`.

use attention::AttentionShape;
use mlx::{Array, Result};
use nn::{LoadError, RmsNorm, Weights};

pub(crate) struct RowNorms {
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    /// Where k and v begin in a merged row.
    ends: [usize; 2],
}

impl RowNorms {
    /// Takes `q_norm` and `k_norm` of an attention layer.
    pub(crate) fn load(
        w: &Weights,
        shape: &AttentionShape,
        eps: f32,
    ) -> std::result::Result<Self, LoadError> {
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        Ok(Self {
            q_norm: RmsNorm::load(w.at("q_norm"), q, eps)?,
            k_norm: RmsNorm::load(w.at("k_norm"), kv, eps)?,
            ends: [q, q + kv],
        })
    }

    /// `[num_tokens, (num_heads + 2 * num_kv_heads) * head_dim]` to the same, q and k
    /// normed.
    pub(crate) fn forward(&self, qkv: &Array) -> Result<Array> {
        let parts = qkv.split_at(&self.ends, 1)?;
        let (q, k) = (self.q_norm.forward(&parts[0])?, self.k_norm.forward(&parts[1])?);
        Array::concatenate(&[&q, &k, &parts[2]], 1)
    }
}
