//! The seam between a layer and the code that computes its attention.
//!
//! A backend is stateless: what it works out for a step travels in the
//! [`ForwardBatch`](crate::ForwardBatch), so the graph of one step can be built
//! while another one runs.
//!
//! Upstream: `sglang/srt/layers/attention/base_attn_backend.py`.

use std::{any::Any, cell::RefCell};

use kernels::Reach;
use mlx::{Array, Result};
use nn::RopeTable;

use crate::{AttentionShape, Extent, ForwardMode, HeadNorms, KvPool, Sinks, shape::kept_tokens};

/// The layers that a [`StepLayout`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutLayers {
    /// Every layer.
    All,
    /// Those without a window, where the others have pages of their own.
    WithoutWindow,
    /// Those with a window, of which the layout has no more than what they see: tokens are
    /// counted from the first one it has.
    WithWindow,
}

impl LayoutLayers {
    /// Whether a layer of this reach is among them.
    pub(crate) fn has(self, reach: Reach) -> bool {
        match self {
            Self::All => true,
            Self::WithoutWindow => kept_tokens(reach).is_none(),
            Self::WithWindow => kept_tokens(reach).is_some(),
        }
    }
}

/// The host's view of a step, for [`AttentionBackend::init_forward_metadata`].
#[derive(Debug, Clone, Copy)]
pub struct StepLayout<'a> {
    /// The kind of the step.
    pub mode: ForwardMode,
    /// One for each request.
    pub extents: &'a [Extent],
    /// Rows of the step. Those beyond the extents are padding.
    pub num_tokens: usize,
    /// Tokens in a page.
    pub page_size: usize,
    /// Whose pages the extents speak of.
    pub layers: LayoutLayers,
}

/// What a backend worked out for a step: index arrays, masks.
pub struct ForwardMetadata(Box<dyn Any>);

impl ForwardMetadata {
    /// Wraps a backend's own type.
    pub fn new<T: 'static>(metadata: T) -> Self {
        Self(Box::new(metadata))
    }

    /// # Panics
    /// If another backend made it: a step stays with the backend it began with.
    pub fn get<T: 'static>(&self) -> &T {
        self.0.downcast_ref().expect("metadata is read by the backend that made it")
    }
}

/// One layer's attention in one step.
#[derive(Clone, Copy)]
pub struct AttentionCall<'a> {
    /// The layer.
    pub shape: &'a AttentionShape,
    /// `[num_tokens]` int32, the slot that each token's K and V go to; -1 for
    /// padding.
    pub out_cache_loc: &'a Array,
    /// One for each request.
    pub extents: &'a [Extent],
    /// Made by the same backend for this step.
    pub metadata: &'a ForwardMetadata,
    /// All keys and values of earlier steps.
    pub kv_pool: &'a RefCell<KvPool>,
    /// K and V are another layer's, which wrote them to the same cache earlier in this
    /// step: nothing is written.
    pub reads_only: bool,
    /// One for each head, if the layer has them.
    pub sinks: Option<&'a Sinks>,
}

/// This step's queries, keys and values, rotated.
#[derive(Clone, Copy)]
pub struct Qkv<'a> {
    /// `[num_tokens, num_heads, head_dim]`.
    pub q: &'a Array,
    /// `[num_tokens, num_kv_heads, head_dim]`.
    pub k: &'a Array,
    /// `[num_tokens, num_kv_heads, value_dim]`.
    pub v: &'a Array,
}

/// The same as a merged projection gives them, and how they rotate.
#[derive(Clone, Copy)]
pub struct QkvRows<'a> {
    /// `[num_tokens, (num_heads + 2 * num_kv_heads) * head_dim]`: q, then k, then v.
    pub rows: &'a Array,
    /// What q and k are normed with first, head by head.
    pub norms: Option<&'a HeadNorms>,
    /// How q and k rotate.
    pub rope: RopeTable<'a>,
    /// `[num_tokens]` int32.
    pub positions: &'a Array,
}

/// Writes this step's K and V to the pool, unless the call says that they are there, and
/// computes attention over it.
///
/// A request's rows depend on its own tokens only, up to rounding: what else is
/// in the step, and in which chunks a prompt came, must not show.
pub trait AttentionBackend {
    /// Name for `--attention-backend`.
    fn name(&self) -> &'static str;

    /// Prepares a step, once for all layers of the layout.
    ///
    /// # Errors
    /// Those of MLX.
    fn init_forward_metadata(&self, step: &StepLayout<'_>) -> Result<ForwardMetadata>;

    /// Whether K and V are written into the pool's buffers whoever else holds
    /// them, so that a step may be handed over while the one before it runs.
    fn writes_in_place(&self) -> bool {
        false
    }

    /// Whether rows may be padded: tokens beyond the extents, their slot -1. What
    /// comes out for them means nothing.
    fn pads_rows(&self) -> bool {
        false
    }

    /// The arrays of a decode step's metadata, if kernels that are launched in the
    /// same way in every step of these shapes do all its work.
    fn replay_inputs<'a>(&self, _metadata: &'a ForwardMetadata) -> Option<Vec<&'a Array>> {
        None
    }

    /// Several tokens a request, each seeing its prefix and the tokens up to
    /// itself. Returns `[num_tokens, num_heads * head_dim]`, or with heads apart.
    ///
    /// # Errors
    /// Those of MLX.
    fn forward_extend(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array>;

    /// One token a request. Returns `[num_tokens, num_heads * head_dim]`, or with
    /// heads apart.
    ///
    /// # Errors
    /// Those of MLX.
    fn forward_decode(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array>;

    /// Either kind of step with the norms and the rotation before it, for a backend
    /// that does them at once; `None` if this one, or in this step, does not.
    ///
    /// # Errors
    /// Those of MLX.
    fn forward_rows(
        &self,
        _call: &AttentionCall<'_>,
        _rows: &QkvRows<'_>,
    ) -> Result<Option<Array>> {
        Ok(None)
    }
}
