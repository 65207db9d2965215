//! The attention layer of every model: heads, cache write, backend.
//!
//! Upstream: `sglang/srt/layers/radix_attention.py`.

use mlx::{Array, Result};
use nn::{RmsNorm, Rope, RopePositions};

use crate::{AttentionCall, AttentionShape, ForwardBatch, ForwardMode, Qkv, QkvRows, Sinks};

/// Attention of one layer over whatever the request has in the pool.
pub struct RadixAttention {
    shape: AttentionShape,
    norms: Option<HeadNorms>,
    sinks: Option<Sinks>,
}

/// Norms of the heads of q and k, of one epsilon, before they rotate (Qwen3's).
pub struct HeadNorms {
    /// Over `head_dim`.
    pub q: RmsNorm,
    /// Over `head_dim`.
    pub k: RmsNorm,
}

impl RadixAttention {
    /// The layer of this shape.
    pub fn new(shape: AttentionShape) -> Self {
        Self { shape, norms: None, sinks: None }
    }

    /// The layer with norms of its heads.
    #[must_use]
    pub fn with_norms(self, norms: HeadNorms) -> Self {
        Self { norms: Some(norms), ..self }
    }

    /// The layer with a sink for each of its heads.
    #[must_use]
    pub fn with_sinks(self, sinks: Sinks) -> Self {
        debug_assert_eq!(sinks.values().len(), self.shape.num_heads);
        Self { sinks: Some(sinks), ..self }
    }

    /// Its shape.
    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// Takes the outputs of a merged projection, `[num_tokens, (num_heads + 2 *
    /// num_kv_heads) * head_dim]`, norms heads, rotates, writes K and V, and attends. Returns
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
        if let Some(table) = rope.table() {
            let norms = self.norms.as_ref();
            let rows = QkvRows { rows: qkv, norms, rope: table, positions: &batch.positions };
            if let Some(out) = batch.backend.forward_rows(&self.call(batch), &rows)? {
                return Ok(out);
            }
        }
        let [q, k, v] = match &self.norms {
            None => rope.split(qkv, num_heads, num_kv_heads, positions)?,
            Some(norms) => self.split_normed(qkv, norms, (rope, positions))?,
        };
        self.forward(&q, &k, &v, batch)
    }

    /// Takes merged rows apart, norms the heads of q and k, and rotates them.
    fn split_normed(
        &self,
        qkv: &Array,
        norms: &HeadNorms,
        (rope, positions): (&Rope, &RopePositions),
    ) -> Result<[Array; 3]> {
        let AttentionShape { num_heads, num_kv_heads, head_dim, .. } = self.shape;
        let both = (&norms.q, &norms.k);
        if let Some(qkv) = rope.split_normed(qkv, num_heads, num_kv_heads, both, positions)? {
            return Ok(qkv);
        }
        let rows = qkv.dim(0);
        let heads = |first: usize, count: usize| {
            let (start, stop) = ((first * head_dim) as i32, ((first + count) * head_dim) as i32);
            qkv.slice(&[0, start], &[rows as i32, stop], &[1, 1])
        };
        let normed = |norm: &RmsNorm, first: usize, count: usize| {
            let heads = heads(first, count)?.reshape(&[rows * count, head_dim])?;
            norm.forward(&heads)?.reshape(&[rows, count * head_dim])
        };
        let q = normed(&norms.q, 0, num_heads)?;
        let k = normed(&norms.k, num_heads, num_kv_heads)?;
        let (q, k) = rope.apply(&q, &k, positions)?;
        let v = heads(num_heads + num_kv_heads, num_kv_heads)?;
        Ok([q, k, v.reshape(&[rows, num_kv_heads, head_dim])?])
    }

    /// Writes K and V to their slots and attends. `q` is `[num_tokens,
    /// num_heads, head_dim]`, `k` and `v` likewise with `num_kv_heads`, `v` as wide as
    /// the layer's values; returns `[num_tokens, num_heads * value_dim]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, q: &Array, k: &Array, v: &Array, batch: &ForwardBatch) -> Result<Array> {
        self.attend(&self.call(batch), &Qkv { q, k, v }, batch)
    }

    /// For a layer without K and V of its own: attends over the cache of an earlier layer,
    /// whose shape this one has. `k` and `v` are what that layer gave to
    /// [`RadixAttention::forward`] in this step, and `q` must be computed from its result.
    /// Such a layer is not in a model's `kv_layout`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward_shared(
        &self,
        q: &Array,
        (k, v): (&Array, &Array),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let call = AttentionCall { reads_only: true, ..self.call(batch) };
        self.attend(&call, &Qkv { q, k, v }, batch)
    }

    fn attend(
        &self,
        call: &AttentionCall<'_>,
        qkv: &Qkv<'_>,
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let out = match batch.mode {
            ForwardMode::Extend => batch.backend.forward_extend(call, qkv),
            ForwardMode::Decode => batch.backend.forward_decode(call, qkv),
        }?;
        // A pool of another element type must not promote the model's.
        let width = self.shape.num_heads * self.shape.value_dim();
        let out = if out.ndim() == 2 { out } else { out.reshape(&[qkv.q.dim(0), width])? };
        out.astype(qkv.q.dtype())
    }

    fn call<'a>(&'a self, batch: &'a ForwardBatch) -> AttentionCall<'a> {
        let windows = batch.windows.as_ref().filter(|_| self.shape.kept_tokens().is_some());
        let (out_cache_loc, extents, metadata) = match windows {
            None => (&batch.out_cache_loc, &batch.extents, &batch.metadata),
            Some(step) => (&step.out_cache_loc, &step.extents, &step.metadata),
        };
        AttentionCall {
            shape: &self.shape,
            out_cache_loc,
            extents,
            metadata,
            kv_pool: &batch.kv_pool,
            reads_only: false,
            sinks: self.sinks.as_ref(),
        }
    }
}
