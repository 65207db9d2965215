//! The attention layer of every model: heads, cache write, backend.
//!
//! Upstream: `sglang/srt/layers/radix_attention.py`.

use mlx::{Array, Result};
use nn::{Rope, RopePositions};

use crate::{AttentionCall, AttentionShape, ForwardBatch, ForwardMode, Qkv, QkvRows};

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
        if let (ForwardMode::Decode, Some(table)) = (batch.mode, rope.table()) {
            let rows = QkvRows { rows: qkv, rope: table, positions: &batch.positions };
            if let Some(out) = batch.backend.forward_decode_rows(&self.call(batch), &rows)? {
                return Ok(out);
            }
        }
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
        let (call, qkv) = (self.call(batch), Qkv { q, k, v });
        let out = match batch.mode {
            ForwardMode::Extend => batch.backend.forward_extend(&call, &qkv),
            ForwardMode::Decode => batch.backend.forward_decode(&call, &qkv),
        }?;
        // A pool of another element type must not promote the model's.
        let width = self.shape.num_heads * self.shape.head_dim;
        let out = if out.ndim() == 2 { out } else { out.reshape(&[q.dim(0), width])? };
        out.astype(q.dtype())
    }

    fn call<'a>(&'a self, batch: &'a ForwardBatch) -> AttentionCall<'a> {
        AttentionCall {
            shape: &self.shape,
            out_cache_loc: &batch.out_cache_loc,
            extents: &batch.extents,
            metadata: &batch.metadata,
            kv_pool: &batch.kv_pool,
        }
    }
}
