//! On the CPU device: one kernel writes and attends, prompts and decode alike.

use std::sync::Arc;

use kernels::{
    KvDtype,
    cpu::attention::{
        AttentionInputs, AttentionParams, AttentionPlan, AttentionSeq, paged_attention,
    },
};
use mlx::{Array, Result};

use super::{NAME, pools};
use crate::{
    AttentionBackend, AttentionCall, AttentionShape, Extent, ForwardMetadata, Qkv, StepLayout,
};

pub(super) struct PagedCpu {
    /// By `layer_id`.
    params: Vec<Arc<AttentionParams>>,
}

impl PagedCpu {
    pub(super) fn new(layers: &[AttentionShape], kv_dtype: KvDtype) -> Self {
        let last = layers.iter().map(|layer| layer.layer_id + 1).max().unwrap_or(0);
        let empty = Arc::new(AttentionParams::default());
        let mut params = vec![empty; last];
        for layer in layers {
            params[layer.layer_id] = Arc::new(AttentionParams {
                num_heads: layer.num_heads,
                num_kv_heads: layer.num_kv_heads,
                head_dim: layer.head_dim,
                packed: kv_dtype.is_packed().then_some(kv_dtype),
                scale: layer.scale,
                reach: layer.reach(),
                soft_cap: layer.soft_cap,
                sinks: None,
            });
        }
        Self { params }
    }

    fn forward(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        let plan: &Arc<AttentionPlan> = call.metadata.get();
        let pool = call.kv_pool.borrow();
        let (k_pool, v_pool) = pools(pool.layer(call.shape.layer_id))?;
        let inputs = AttentionInputs {
            q: qkv.q,
            k: qkv.k,
            v: qkv.v,
            slots: call.out_cache_loc,
            k_pool,
            v_pool,
            writes: !call.reads_only,
        };
        let params = &self.params[call.shape.layer_id];
        match call.sinks.map(|sinks| sinks.values().to_vec()) {
            None => paged_attention(params, plan, inputs),
            sinks => {
                let params = AttentionParams { sinks, ..AttentionParams::clone(params) };
                paged_attention(&Arc::new(params), plan, inputs)
            }
        }
    }
}

impl AttentionBackend for PagedCpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn init_forward_metadata(&self, step: &StepLayout<'_>) -> Result<ForwardMetadata> {
        let seq = |extent: &Extent| AttentionSeq {
            start: extent.start,
            len: extent.len,
            prefix_len: extent.prefix_len,
            pages: extent.pages.clone(),
        };
        let seqs = step.extents.iter().map(seq).collect();
        Ok(ForwardMetadata::new(Arc::new(AttentionPlan { seqs, page_size: step.page_size })))
    }

    fn writes_in_place(&self) -> bool {
        true
    }

    fn forward_extend(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        self.forward(call, qkv)
    }

    fn forward_decode(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        self.forward(call, qkv)
    }
}
