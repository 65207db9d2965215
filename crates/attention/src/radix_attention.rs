//! The attention layer of every model: heads, cache write, backend.
//!
//! Upstream: `sglang/srt/layers/radix_attention.py`.

use mlx::{Array, Result};

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

    /// Writes K and V to their slots, then attends. `q` is
    /// `[num_tokens, num_heads, head_dim]` or flat `[num_tokens, num_heads *
    /// head_dim]`, `k` and `v` likewise with `num_kv_heads`; returns
    /// `[num_tokens, num_heads * head_dim]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, q: &Array, k: &Array, v: &Array, batch: &ForwardBatch) -> Result<Array> {
        let shape = &self.shape;
        let num_tokens = q.dim(0);
        let heads = |x: &Array, num_heads: usize| {
            if x.ndim() == 3 {
                Ok(x.clone())
            } else {
                x.reshape(&[num_tokens, num_heads, shape.head_dim])
            }
        };
        let (q, k) = (heads(q, shape.num_heads)?, heads(k, shape.num_kv_heads)?);
        let v = heads(v, shape.num_kv_heads)?;
        batch.kv_pool.borrow_mut().write(shape.layer_id, &batch.out_cache_loc, &k, &v)?;
        let call = AttentionCall {
            shape,
            q: &q,
            k: &k,
            v: &v,
            extents: &batch.extents,
            metadata: &batch.metadata,
            kv_pool: &batch.kv_pool.borrow(),
        };
        let out = match batch.mode {
            ForwardMode::Extend => batch.backend.forward_extend(&call),
            ForwardMode::Decode => batch.backend.forward_decode(&call),
        }?;
        // A pool of another element type must not promote the model's.
        out.reshape(&[num_tokens, shape.num_heads * shape.head_dim])?.astype(q.dtype())
    }
}
