//! The attention layer of every model: heads, cache write, backend.
//!
//! Upstream: `sglang/srt/layers/radix_attention.py`.

use mlx::{Array, Result};
use nn::{Rope, RopePositions};

use crate::{AttentionCall, AttentionShape, ForwardBatch, ForwardMode};

/// Attention of one layer over whatever the request has in the pool.
#[derive(Debug, Clone)]
pub struct RadixAttention {
    shape: AttentionShape,
}

impl RadixAttention {
    /// The layer of this shape.
    pub fn new(shape: AttentionShape) -> Self {
        Self { shape }
    }

    /// Its shape.
    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// Takes the outputs of a merged projection, `[num_tokens, (num_heads + 2 *
    /// num_kv_heads) * head_dim]`, rotates, writes K and V, and attends. Returns
    /// `[num_tokens, num_heads * head_dim]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward_rope(
        &self,
        qkv: &Array,
        (rope, positions): (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let AttentionShape { num_heads, num_kv_heads, .. } = self.shape;
        let [q, k, v] = rope.split(qkv, num_heads, num_kv_heads, positions)?;
        self.forward(&q, &k, &v, batch)
    }

    /// Writes K and V to their slots and attends. `q` is `[num_tokens,
    /// num_heads, head_dim]`, `k` and `v` likewise with `num_kv_heads`; returns
    /// `[num_tokens, num_heads * head_dim]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, q: &Array, k: &Array, v: &Array, batch: &ForwardBatch) -> Result<Array> {
        let shape = &self.shape;
        let call = AttentionCall {
            shape,
            q,
            k,
            v,
            out_cache_loc: &batch.out_cache_loc,
            extents: &batch.extents,
            metadata: &batch.metadata,
            kv_pool: &batch.kv_pool,
        };
        let out = match batch.mode {
            ForwardMode::Extend => batch.backend.forward_extend(&call),
            ForwardMode::Decode => batch.backend.forward_decode(&call),
        }?;
        // A pool of another element type must not promote the model's.
        out.reshape(&[q.dim(0), shape.num_heads * shape.head_dim])?.astype(q.dtype())
    }
}
