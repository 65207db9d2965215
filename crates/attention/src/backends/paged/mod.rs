//! Our kernels: K and V are written to the pool in place and read through the
//! page tables, so steps overlap and decode gathers nothing.
//!
//! Upstream: `sglang/srt/layers/attention/triton_backend.py`.

use std::rc::Rc;

use kernels::{Kernels, KvDtype, paged_decode::HEAD_DIMS};
use mlx::{
    Array, Error, Result,
    device::{self, DeviceKind},
};

use crate::{AttentionBackend, AttentionShape, CacheKind, LayerCache, registry::BackendEntry};

mod cpu;
mod gpu;

const NAME: &str = "paged";

pub(crate) const ENTRY: BackendEntry =
    BackendEntry { name: NAME, supports, reads_packed: true, new };

fn supports(layers: &[AttentionShape]) -> bool {
    let is_known = |layer: &AttentionShape| layer.cache == CacheKind::Full;
    match device::default() {
        Ok(DeviceKind::Cpu) => layers.iter().all(is_known),
        Ok(DeviceKind::Gpu) => {
            Kernels::here().is_some()
                && layers.iter().all(|layer| is_known(layer) && HEAD_DIMS.contains(&layer.head_dim))
        }
        Err(_) => false,
    }
}

fn new(layers: &[AttentionShape], kv_dtype: KvDtype) -> Rc<dyn AttentionBackend> {
    match Kernels::here() {
        Some(kernels) => Rc::new(gpu::PagedGpu::new(layers, kv_dtype, kernels)),
        None => Rc::new(cpu::PagedCpu::new(layers, kv_dtype)),
    }
}

/// The pools of K and V of a layer.
fn pools(cache: &LayerCache) -> Result<(&Array, &Array)> {
    let LayerCache::Full(cache) = cache else {
        unreachable!("{NAME} does not support the other kinds");
    };
    cache.whole().ok_or_else(|| {
        let message = "the device's largest buffer splits the pool: lower --max-total-tokens, or \
                       use the backend sdpa";
        Error { op: NAME, message: message.to_owned() }
    })
}
