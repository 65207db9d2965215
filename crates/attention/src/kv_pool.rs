//! Keys and values of every token that is alive, one slot a token.
//!
//! Allocated once, written in place. MLX scatters into the buffer it is given
//! only if nobody else holds it; a second holder means a copy of the whole
//! pool, silently. So a layer's array has one owner, here, every write replaces
//! the handle, and readers get lazy gathers, never the array.
//!
//! The same rule reaches across steps: a step that still *runs* holds the
//! buffers it reads. Build the next step's graph meanwhile, but submit it only
//! after the running one is done ([`KvPool::write`]). Kernels that write in place
//! by themselves are free of it: MLX takes the pool for a mere input, and their
//! order is that of the pool's chain ([`kernels::kv_write`]).
//!
//! Upstream: `sglang/srt/mem_cache/memory_pool.py`.

use kernels::{KvDtype, kv_write::CHAIN_LEN};
use mlx::{Array, Dtype, Result};

use crate::{
    AttentionError, AttentionShape, CacheKind,
    recurrent::{LayerStates, StateShape},
};

mod full;
mod latent;
mod slot_index;
#[cfg(test)]
mod tests;

pub use full::FullCache;
pub use latent::LatentCache;
pub use slot_index::SlotIndex;

/// Size and element type of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvPoolConfig {
    /// Pages.
    pub num_pages: usize,
    /// Tokens in a page.
    pub page_size: usize,
    /// What rows of K and V are made of.
    pub dtype: KvDtype,
    /// Largest buffer of the device, if it has a limit.
    pub max_buffer_bytes: Option<usize>,
}

/// The cache of one layer.
#[non_exhaustive]
pub enum LayerCache {
    /// K and V of every token.
    Full(FullCache),
    /// One vector of every token.
    Latent(LatentCache),
}

impl LayerCache {
    fn new(shape: &AttentionShape, config: &KvPoolConfig) -> Result<Self, AttentionError> {
        match shape.cache {
            CacheKind::Full => FullCache::new(shape, config).map(Self::Full),
            CacheKind::Latent { value_dim } => {
                LatentCache::new(shape.head_dim, value_dim, config).map(Self::Latent)
            }
        }
    }

    fn nbytes(&self) -> usize {
        match self {
            Self::Full(cache) => cache.nbytes(),
            Self::Latent(cache) => cache.nbytes(),
        }
    }

    /// K and V of the tokens in some slots, `[num_reqs, num_kv_heads, num_keys,
    /// head_dim]` each; V may be narrower. Not of packed rows.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn gather(&self, index: &SlotIndex) -> Result<(Array, Array)> {
        match self {
            Self::Full(cache) => cache.gather(index),
            Self::Latent(cache) => cache.gather(index),
        }
    }
}

/// The caches of all layers; a slot means the same token in each of them.
pub struct KvPool {
    page_size: usize,
    num_slots: usize,
    layers: Vec<LayerCache>,
    /// Of recurrent layers, by `state_id`.
    states: Vec<LayerStates>,
    /// `[8]` int32, computed after every use of the pool so far that MLX does
    /// not know of.
    chain: Array,
}

impl KvPool {
    /// Allocates the caches of a model, zeroed. `layers[i]` gets `layer_id` i.
    ///
    /// # Errors
    /// The device lacks the memory, or allows only smaller buffers.
    pub fn new(layers: &[AttentionShape], config: &KvPoolConfig) -> Result<Self, AttentionError> {
        let layers = layers
            .iter()
            .map(|shape| LayerCache::new(shape, config))
            .collect::<Result<Vec<_>, _>>()?;
        let num_slots = config.num_pages * config.page_size;
        let chain = Array::zeros(&[CHAIN_LEN], Dtype::Int32)?;
        chain.eval()?;
        Ok(Self { page_size: config.page_size, num_slots, layers, states: Vec::new(), chain })
    }

    /// Allocates as many states for each recurrent layer, with convolutions in `dtype`.
    /// `states[i]` gets `state_id` i.
    ///
    /// # Errors
    /// As for [`KvPool::new`].
    pub fn with_states(
        self,
        states: &[StateShape],
        (num_states, dtype): (usize, Dtype),
        config: &KvPoolConfig,
    ) -> Result<Self, AttentionError> {
        let states = states.iter().map(|shape| LayerStates::new(shape, num_states, dtype, config));
        Ok(Self { states: states.collect::<Result<_, _>>()?, ..self })
    }

    /// Tokens in a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Tokens that fit.
    pub fn num_slots(&self) -> usize {
        self.num_slots
    }

    /// Bytes of all layers.
    pub fn nbytes(&self) -> usize {
        let states = self.states.iter().map(LayerStates::nbytes);
        self.layers.iter().map(LayerCache::nbytes).chain(states).sum()
    }

    /// Writes K and V of this step's tokens, `[num_tokens, num_kv_heads,
    /// head_dim]`, to `slots`, `[num_tokens]` int32, when the graph runs. A cache of
    /// latents takes K alone.
    ///
    /// Not for packed rows, which only kernels write.
    ///
    /// In place if at the time of `eval` no earlier step that reads the pool is
    /// still running.
    ///
    /// # Errors
    /// Those of MLX. The pool keeps what it had.
    pub fn write(&mut self, layer_id: usize, slots: &Array, k: &Array, v: &Array) -> Result<()> {
        match &mut self.layers[layer_id] {
            LayerCache::Full(cache) => cache.write(slots, k, v),
            LayerCache::Latent(cache) => cache.write(slots, k),
        }
    }

    /// What a write in place has to come after, see [`kernels::kv_write`].
    pub(crate) fn chain(&self) -> &Array {
        &self.chain
    }

    pub(crate) fn set_chain(&mut self, chain: Array) {
        self.chain = chain;
    }

    /// Puts all later writes after `ids`, `[n]` int32, which a step's last
    /// operation gives. The result must be evaluated with the step: a write that
    /// nothing reads in its own step would not run otherwise.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn fence(&mut self, ids: &Array) -> Result<Array> {
        self.chain = self.chain.add(&ids.slice(&[0], &[1], &[1])?)?;
        Ok(self.chain.clone())
    }

    /// The states of a recurrent layer.
    pub(crate) fn states(&self, state_id: usize) -> &LayerStates {
        &self.states[state_id]
    }

    /// The cache of a layer, for a backend that knows its kind.
    pub fn layer(&self, layer_id: usize) -> &LayerCache {
        &self.layers[layer_id]
    }
}
