//! What one attention layer looks like from outside: enough to size its cache
//! and to choose a backend.

use kernels::{KvDtype, Reach};

/// Which cache a layer keeps for each token, each kind with its own variant of
/// [`LayerCache`](crate::LayerCache). Recurrent and windowed caches become further
/// kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheKind {
    /// K and V of every token, for as long as the token lives.
    #[default]
    Full,
    /// One vector a token, the key of all heads, whose first elements are the value:
    /// multi-head latent attention with its projections absorbed into queries and
    /// outputs. There is one K/V head.
    Latent {
        /// Width of the value.
        value_dim: usize,
    },
}

/// The shape of one attention layer. Its default has no heads, no window, no chunks, no
/// cap and a full cache: models say what they have and leave the rest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttentionShape {
    /// Index of its cache in the [`KvPool`](crate::KvPool). Layers that share a cache have
    /// the same, and the same shape.
    pub layer_id: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    /// A token sees this many tokens, itself included. `None`: all before it.
    pub sliding_window: Option<usize>,
    /// Positions are cut into chunks of so many (not 0), and a token sees no other chunk: the
    /// one at `p` sees those from `p / chunk * chunk` on (Llama 4; upstream:
    /// `sglang/srt/models/llama4.py`). `None`: there are no chunks.
    pub attention_chunk: Option<usize>,
    /// Scores are pressed below this by a tanh before the softmax (Gemma 2's).
    pub soft_cap: Option<f32>,
    /// What the layer keeps.
    pub cache: CacheKind,
}

impl AttentionShape {
    /// Which tokens one sees.
    pub(crate) fn reach(&self) -> Reach {
        Reach { window: self.sliding_window, chunk: self.attention_chunk }
    }

    /// Width of a head's output.
    pub fn value_dim(&self) -> usize {
        match self.cache {
            CacheKind::Full => self.head_dim,
            CacheKind::Latent { value_dim } => value_dim,
        }
    }

    /// Bytes of cache that one token takes in this layer, whose rows are of `dtype`.
    pub fn cache_bytes_per_token(&self, dtype: KvDtype) -> usize {
        match self.cache {
            CacheKind::Full => 2 * self.num_kv_heads * dtype.row_bytes(self.head_dim),
            CacheKind::Latent { .. } => dtype.row_bytes(self.head_dim),
        }
    }
}
