//! Attention over a paged K/V pool: what a model calls ([`RadixAttention`]),
//! what a step looks like ([`ForwardBatch`]), where keys and values live
//! ([`KvPool`]) and who computes ([`AttentionBackend`]).
//!
//! Upstream: `sglang/srt/layers/radix_attention.py`,
//! `sglang/srt/layers/attention/`, `sglang/srt/mem_cache/memory_pool.py`.

mod backend;
mod backends;
mod error;
mod forward_batch;
mod kv_pool;
mod radix_attention;
mod recurrent;
#[cfg(test)]
mod reference;
mod registry;
mod shape;
mod sinks;

pub use backend::{
    AttentionBackend, AttentionCall, ForwardMetadata, LayoutLayers, Qkv, QkvRows, StepLayout,
};
pub use backends::MAX_LATENT_SCORES;
pub use error::AttentionError;
pub use forward_batch::{BatchInputs, Extent, ForwardBatch, ForwardMode, WindowInputs, WindowStep};
pub use kernels::{
    KvDtype,
    cpu::recurrent::{StatePlan, StateRow},
};
pub use kv_pool::{FullCache, KvPool, KvPoolConfig, LatentCache, LayerCache, SlotIndex};
pub use radix_attention::{HeadNorms, RadixAttention};
pub use recurrent::{CausalConv, RecurrentScan, ScanRows, StateShape, StateStep};
pub use registry::{BACKENDS, BackendEntry, build, find};
pub use shape::{AttentionShape, CacheKind};
pub use sinks::Sinks;
