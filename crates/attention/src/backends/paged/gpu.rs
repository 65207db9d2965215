//! On a GPU: a kernel writes in place, decode reads through the page tables.
//! Prompts gather their prefix for MLX's fused attention.
//!
//! MLX sees the pools as mere inputs. What keeps order is the chain of
//! [`kernels::kv_write`]: every write takes the chain of the one before, every
//! read depends on the chain of its write, and between steps the chain becomes
//! the sampled tokens ([`KvPool::fence`](crate::KvPool::fence)), which come after
//! all reads.

use std::rc::Rc;

use kernels::{
    AttentionSpec, DecodeInputs, Kernels, KvWriteInputs, RopeInputs, RopeSpec, kv_write,
    paged_decode, rope_kv_write,
};
use mlx::{Array, Dtype, Result};

use super::{NAME, pools};
use crate::{
    AttentionBackend, AttentionCall, AttentionShape, ForwardMetadata, ForwardMode, LayerCache, Qkv,
    QkvRows, StepLayout,
    backends::sdpa::{ExtendSeq, extend_one},
};

pub(super) struct PagedGpu {
    /// Distinct windows of the model's layers.
    windows: Vec<Option<usize>>,
    kernels: Rc<Kernels>,
}

/// Fewest pages of a table.
const MIN_PAGES: usize = 16;

/// What all layers of a step share.
enum Plan {
    Extend(Vec<(Option<usize>, Vec<ExtendSeq>)>),
    Decode(DecodeTables),
}

struct DecodeTables {
    /// `[num_rows, max_pages]` int32.
    page_table: Array,
    /// `[num_rows]` int32; 0 for padding.
    seq_lens: Array,
    max_seq_len: usize,
    page_size: usize,
}

impl PagedGpu {
    pub(super) fn new(layers: &[AttentionShape], kernels: Rc<Kernels>) -> Self {
        let mut windows: Vec<_> = layers.iter().map(|layer| layer.sliding_window).collect();
        windows.sort_unstable();
        windows.dedup();
        Self { windows, kernels }
    }

    /// Adds the write of this step's K and V; gives its chain.
    fn write(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        let mut pool = call.kv_pool.borrow_mut();
        let after = pool.chain().clone();
        let (k_pool, v_pool) = pools(pool.layer(call.shape.layer_id))?;
        let inputs = KvWriteInputs {
            k: qkv.k,
            v: qkv.v,
            k_pool,
            v_pool,
            slots: call.out_cache_loc,
            after: &after,
        };
        let chain = kv_write(&self.kernels, &inputs)?;
        pool.set_chain(chain.clone());
        Ok(chain)
    }

    /// Rotates and writes in one launch; gives the queries and the write's chain.
    fn rotate_and_write(
        &self,
        call: &AttentionCall<'_>,
        rows: &QkvRows<'_>,
    ) -> Result<(Array, Array)> {
        let mut pool = call.kv_pool.borrow_mut();
        let after = pool.chain().clone();
        let (k_pool, v_pool) = pools(pool.layer(call.shape.layer_id))?;
        let inputs = RopeInputs {
            qkv: rows.rows,
            norms: rows.norms.map(|norms| (norms.q.weight(), norms.k.weight())),
            inv_freq: rows.rope.inv_freq,
            positions: rows.positions,
            k_pool,
            v_pool,
            slots: call.out_cache_loc,
            after: &after,
        };
        let spec = rope_spec(call.shape, rows, k_pool.dtype());
        let (q, chain) = rope_kv_write(&self.kernels, &spec, &inputs)?;
        pool.set_chain(chain.clone());
        Ok((q, chain))
    }

    /// Attention over the pool, once `chain` is computed.
    fn decode(&self, call: &AttentionCall<'_>, q: &Array, chain: &Array) -> Result<Array> {
        let Plan::Decode(tables) = call.metadata.get() else {
            unreachable!("the mode of a step does not change");
        };
        let pool = call.kv_pool.borrow();
        let (k_pool, v_pool) = pools(pool.layer(call.shape.layer_id))?;
        let spec = AttentionSpec {
            num_heads: call.shape.num_heads,
            num_kv_heads: call.shape.num_kv_heads,
            head_dim: call.shape.head_dim,
            page_size: tables.page_size,
            scale: call.shape.scale,
            window: call.shape.sliding_window,
            soft_cap: None,
            has_sinks: false,
            dtype: q.dtype(),
            kv_dtype: k_pool.dtype(),
        };
        let inputs = DecodeInputs {
            q,
            k_pool,
            v_pool,
            page_table: &tables.page_table,
            seq_lens: &tables.seq_lens,
            sinks: None,
            chain,
        };
        Ok(paged_decode(&self.kernels, &spec, &inputs, tables.max_seq_len)?)
    }
}

fn rope_spec(shape: &AttentionShape, rows: &QkvRows<'_>, kv_dtype: Dtype) -> RopeSpec {
    RopeSpec {
        num_heads: shape.num_heads,
        num_kv_heads: shape.num_kv_heads,
        head_dim: shape.head_dim,
        rotary_dim: 2 * rows.rope.inv_freq.size(),
        traditional: rows.rope.traditional,
        mscale: rows.rope.mscale,
        norm_eps: rows.norms.map(|norms| norms.q.eps()),
        dtype: rows.rows.dtype(),
        kv_dtype,
    }
}

impl DecodeTables {
    fn new(step: &StepLayout<'_>) -> Result<Self> {
        // Of few widths, so that steps repeat their shapes; the launch follows from
        // the width.
        let most = step.extents.iter().map(|extent| extent.pages.len()).max().unwrap_or(1);
        let max_pages = most.next_power_of_two().max(MIN_PAGES);
        let mut pages = vec![0; step.num_tokens * max_pages];
        let mut lens = vec![0; step.num_tokens];
        let rows = pages.chunks_exact_mut(max_pages).zip(&mut lens).zip(step.extents);
        for ((row, len), extent) in rows {
            *len = extent.seq_len() as i32;
            for (to, page) in row.iter_mut().zip(&extent.pages) {
                *to = *page as i32;
            }
        }
        Ok(Self {
            page_table: Array::from_slice(&pages, &[step.num_tokens, max_pages])?,
            seq_lens: Array::from_slice(&lens, &[step.num_tokens])?,
            max_seq_len: max_pages * step.page_size,
            page_size: step.page_size,
        })
    }
}

impl AttentionBackend for PagedGpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn init_forward_metadata(&self, step: &StepLayout<'_>) -> Result<ForwardMetadata> {
        let plan = match step.mode {
            ForwardMode::Decode => Plan::Decode(DecodeTables::new(step)?),
            ForwardMode::Extend => {
                let seqs = |&window| Ok((window, ExtendSeq::plan(step, window)?));
                Plan::Extend(self.windows.iter().map(seqs).collect::<Result<_>>()?)
            }
        };
        Ok(ForwardMetadata::new(plan))
    }

    fn writes_in_place(&self) -> bool {
        true
    }

    fn pads_rows(&self) -> bool {
        true
    }

    fn replay_inputs<'a>(&self, metadata: &'a ForwardMetadata) -> Option<Vec<&'a Array>> {
        match metadata.get() {
            Plan::Decode(tables) => Some(vec![&tables.page_table, &tables.seq_lens]),
            Plan::Extend(_) => None,
        }
    }

    fn forward_extend(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        let Plan::Extend(plans) = call.metadata.get() else {
            unreachable!("the mode of a step does not change");
        };
        let window = call.shape.sliding_window;
        let found = plans.iter().find(|(planned, _)| *planned == window);
        let seqs = &found.expect("the backend was made for the layers of this model").1;
        let chain = self.write(call, qkv)?;
        // In every index of this layer, so that its gathers come after the write.
        let zero = chain.slice(&[0], &[1], &[1])?.multiply(&Array::scalar(0_i32)?)?;
        let gather = |slots: &_| {
            let pool = call.kv_pool.borrow();
            let LayerCache::Full(cache) = pool.layer(call.shape.layer_id);
            cache.gather_after(slots, &zero)
        };
        let outs = seqs
            .iter()
            .map(|seq| extend_one((call, qkv), seq, gather))
            .collect::<Result<Vec<_>>>()?;
        match outs.as_slice() {
            [out] => Ok(out.clone()),
            outs => Array::concatenate(&outs.iter().collect::<Vec<_>>(), 0),
        }
    }

    fn forward_decode(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        let chain = self.write(call, qkv)?;
        self.decode(call, qkv.q, &chain)
    }

    fn forward_decode_rows(
        &self,
        call: &AttentionCall<'_>,
        rows: &QkvRows<'_>,
    ) -> Result<Option<Array>> {
        if !rope_kv_write::supports(&rope_spec(call.shape, rows, rows.rows.dtype())) {
            return Ok(None);
        }
        let (q, chain) = self.rotate_and_write(call, rows)?;
        self.decode(call, &q, &chain).map(Some)
    }
}
