//! On a GPU: a kernel writes in place, attention reads through the page tables. A
//! single prompt without a prefix goes to MLX's fused attention, and in f32, for
//! which there is no matrix unit, all prompts do, their prefix gathered. Heads wider than
//! the matrix unit's kernel takes ([`kernels::ExtendTiling`]) go to the one without. Packed
//! rows are only ever read by our kernels, a prompt's own rows too: what a token sees of
//! another is the same in whichever step it came.
//!
//! MLX sees the pools as mere inputs. What keeps order is the chain of
//! [`kernels::kv_write`]: every write takes the chain of the one before, every
//! read depends on the chain of its write, and between steps the chain becomes
//! the sampled tokens ([`KvPool::fence`](crate::KvPool::fence)), which come after
//! all reads. A layer that reads another's cache depends on the chain as it is by then,
//! which that layer's write is part of.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
};

use kernels::{
    AttentionSpec, DecodeInputs, ExtendInputs, ExtendTiling, Kernels, KvDtype, KvWriteInputs,
    Reach, RopeInputs, RopeSpec, kv_write, paged_decode, paged_extend, rope_kv_write,
};
use mlx::{Array, Dtype, Result};

use super::{NAME, pools};
use crate::{
    AttentionBackend, AttentionCall, AttentionShape, Extent, ForwardMetadata, ForwardMode,
    LayerCache, LayoutLayers, Qkv, QkvRows, Sinks, StepLayout,
    backends::sdpa::{ExtendSeq, extend_one},
};

pub(super) struct PagedGpu {
    /// Distinct reaches of the model's layers.
    reaches: Vec<Reach>,
    /// Whether some layer has what MLX's fused attention has not: a cap on its scores, heads
    /// so wide that all scores of a prompt would exist at once, or packed rows.
    avoids_mlx: bool,
    kv_dtype: KvDtype,
    kernels: Rc<Kernels>,
}

/// Widest head that MLX may attend with.
const MAX_MLX_HEAD_DIM: usize = 256;

/// Fewest pages of a table.
const MIN_PAGES: usize = 16;

/// What all layers of a step share.
enum Plan {
    Extend(ExtendPlan),
    Decode(DecodeTables),
}

struct ExtendPlan {
    /// For each reach of the model, for MLX's attention.
    gathers: OnceCell<Vec<(Reach, Vec<ExtendSeq>)>>,
    /// What a gather is planned from.
    step: OwnedLayout,
    /// For our kernel; `None` for a single prompt without a prefix, unless MLX is avoided.
    tables: Option<ExtendTables>,
}

/// A [`StepLayout`] that outlives its step's making.
struct OwnedLayout {
    extents: Vec<Extent>,
    num_tokens: usize,
    page_size: usize,
    layers: LayoutLayers,
}

struct ExtendTables {
    /// `[num_reqs, max_pages]` int32.
    page_table: Array,
    /// `[num_reqs]` int32 each: first row, rows, tokens before.
    starts: Array,
    new_lens: Array,
    prefix_lens: Array,
    /// Rows of each request, for the host.
    lens: Vec<usize>,
    /// Tiles of so many tokens, `[num_tiles, 2]` int32; one list for each shape of a
    /// layer.
    tiles: RefCell<Vec<(usize, Array)>>,
    page_size: usize,
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
    pub(super) fn new(layers: &[AttentionShape], kv_dtype: KvDtype, kernels: Rc<Kernels>) -> Self {
        let mut reaches: Vec<_> = layers.iter().map(AttentionShape::reach).collect();
        reaches.sort_unstable();
        reaches.dedup();
        let avoids_mlx = kv_dtype.is_packed()
            || layers
                .iter()
                .any(|layer| layer.soft_cap.is_some() || layer.head_dim > MAX_MLX_HEAD_DIM);
        Self { reaches, avoids_mlx, kv_dtype, kernels }
    }

    /// Whether prompts in `dtype` go to our kernels.
    fn extends(&self, dtype: Dtype) -> bool {
        dtype != Dtype::Float32 || self.kv_dtype.is_packed()
    }

    /// Adds the write of this step's K and V, unless they are there; gives its chain.
    fn write(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        let mut pool = call.kv_pool.borrow_mut();
        let after = pool.chain().clone();
        if call.reads_only {
            return Ok(after);
        }
        let (k_pool, v_pool) = pools(pool.layer(call.shape.layer_id))?;
        let inputs = KvWriteInputs {
            k: qkv.k,
            v: qkv.v,
            k_pool,
            v_pool,
            slots: call.out_cache_loc,
            after: &after,
        };
        let chain = kv_write(&self.kernels, self.kv_dtype, &inputs)?;
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
        let spec = rope_spec(call.shape, rows, self.kv_dtype);
        let (q, chain) = rope_kv_write(&self.kernels, &spec, &inputs)?;
        pool.set_chain(chain.clone());
        Ok((q, chain))
    }

    /// Attention of prompts over the pool, once `chain` is computed.
    fn extend(
        &self,
        call: &AttentionCall<'_>,
        tables: &ExtendTables,
        q: &Array,
        chain: &Array,
    ) -> Result<Array> {
        let pool = call.kv_pool.borrow();
        let (k_pool, v_pool) = pools(pool.layer(call.shape.layer_id))?;
        let spec = attention_spec(call, tables.page_size, (q.dtype(), self.kv_dtype));
        let tiles = tables.tiles(ExtendTiling::new(&spec)?)?;
        let inputs = ExtendInputs {
            q,
            k_pool,
            v_pool,
            page_table: &tables.page_table,
            starts: &tables.starts,
            new_lens: &tables.new_lens,
            prefix_lens: &tables.prefix_lens,
            tiles: &tiles,
            sinks: call.sinks.map(Sinks::array),
            chain,
        };
        let width = spec.num_heads * spec.head_dim;
        paged_extend(&self.kernels, &spec, &inputs)?.reshape(&[q.dim(0), width])
    }

    /// Attention over the pool, once `chain` is computed.
    fn decode(&self, call: &AttentionCall<'_>, q: &Array, chain: &Array) -> Result<Array> {
        let Plan::Decode(tables) = call.metadata.get() else {
            unreachable!("the mode of a step does not change");
        };
        let pool = call.kv_pool.borrow();
        let (k_pool, v_pool) = pools(pool.layer(call.shape.layer_id))?;
        let spec = attention_spec(call, tables.page_size, (q.dtype(), self.kv_dtype));
        let inputs = DecodeInputs {
            q,
            k_pool,
            v_pool,
            page_table: &tables.page_table,
            seq_lens: &tables.seq_lens,
            sinks: call.sinks.map(Sinks::array),
            chain,
        };
        Ok(paged_decode(&self.kernels, &spec, &inputs, tables.max_seq_len)?)
    }
}

fn attention_spec(
    call: &AttentionCall<'_>,
    page_size: usize,
    (dtype, kv_dtype): (Dtype, KvDtype),
) -> AttentionSpec {
    let shape = call.shape;
    AttentionSpec {
        num_heads: shape.num_heads,
        num_kv_heads: shape.num_kv_heads,
        head_dim: shape.head_dim,
        page_size,
        scale: shape.scale,
        reach: shape.reach(),
        soft_cap: shape.soft_cap,
        has_sinks: call.sinks.is_some(),
        dtype,
        kv_dtype,
    }
}

fn rope_spec(shape: &AttentionShape, rows: &QkvRows<'_>, kv_dtype: KvDtype) -> RopeSpec {
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
        let mut lens: Vec<i32> =
            step.extents.iter().map(|extent| extent.seq_len() as i32).collect();
        lens.resize(step.num_tokens, 0);
        Ok(Self {
            page_table: page_rows(step.extents, step.num_tokens, max_pages)?,
            seq_lens: Array::from_slice(&lens, &[step.num_tokens])?,
            max_seq_len: max_pages * step.page_size,
            page_size: step.page_size,
        })
    }
}

/// Pages of each request in a row, of the same width.
fn page_rows(extents: &[Extent], num_rows: usize, max_pages: usize) -> Result<Array> {
    let mut pages = vec![0; num_rows * max_pages];
    for (row, extent) in pages.chunks_exact_mut(max_pages).zip(extents) {
        for (to, page) in row.iter_mut().zip(&extent.pages) {
            *to = *page as i32;
        }
    }
    Array::from_slice(&pages, &[num_rows, max_pages])
}

impl ExtendTables {
    fn new(step: &StepLayout<'_>) -> Result<Self> {
        let column = |value: fn(&Extent) -> usize| {
            let values: Vec<i32> = step.extents.iter().map(|extent| value(extent) as i32).collect();
            Array::from_slice(&values, &[values.len()])
        };
        let max_pages = step.extents.iter().map(|extent| extent.pages.len()).max().unwrap_or(1);
        Ok(Self {
            page_table: page_rows(step.extents, step.extents.len(), max_pages)?,
            starts: column(|extent| extent.start)?,
            new_lens: column(|extent| extent.len)?,
            prefix_lens: column(|extent| extent.prefix_len)?,
            lens: step.extents.iter().map(|extent| extent.len).collect(),
            tiles: RefCell::default(),
            page_size: step.page_size,
        })
    }

    fn tiles(&self, tiling: ExtendTiling) -> Result<Array> {
        let tokens = tiling.tile_tokens();
        let mut known = self.tiles.borrow_mut();
        if let Some((_, tiles)) = known.iter().find(|(of, _)| *of == tokens) {
            return Ok(tiles.clone());
        }
        let tiles = tiling.tiles(&self.lens);
        let tiles = Array::from_slice(&tiles, &[tiles.len() / 2, 2])?;
        known.push((tokens, tiles.clone()));
        Ok(tiles)
    }
}

impl ExtendPlan {
    fn new(step: &StepLayout<'_>, avoids_mlx: bool) -> Result<Self> {
        let is_fresh = !avoids_mlx && matches!(step.extents, [only] if only.prefix_len == 0);
        Ok(Self {
            gathers: OnceCell::new(),
            step: OwnedLayout {
                extents: step.extents.to_vec(),
                num_tokens: step.num_tokens,
                page_size: step.page_size,
                layers: step.layers,
            },
            tables: if is_fresh { None } else { Some(ExtendTables::new(step)?) },
        })
    }

    /// The gathers of layers with this reach.
    fn gathers(&self, reaches: &[Reach], reach: Reach) -> Result<&[ExtendSeq]> {
        if self.gathers.get().is_none() {
            let step = StepLayout {
                mode: ForwardMode::Extend,
                extents: &self.step.extents,
                num_tokens: self.step.num_tokens,
                page_size: self.step.page_size,
                layers: self.step.layers,
            };
            let seqs = |&reach| Ok((reach, ExtendSeq::plan(&step, reach)?));
            let reaches = reaches.iter().filter(|&&reach| step.layers.has(reach));
            let all = reaches.map(seqs).collect::<Result<_>>()?;
            self.gathers.get_or_init(|| all);
        }
        let all = self.gathers.get().expect("made above");
        let found = all.iter().find(|(planned, _)| *planned == reach);
        Ok(&found.expect("the backend was made for the layers of this model").1)
    }
}

impl AttentionBackend for PagedGpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn init_forward_metadata(&self, step: &StepLayout<'_>) -> Result<ForwardMetadata> {
        let plan = match step.mode {
            ForwardMode::Decode => Plan::Decode(DecodeTables::new(step)?),
            ForwardMode::Extend => Plan::Extend(ExtendPlan::new(step, self.avoids_mlx)?),
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
        let Plan::Extend(plan) = call.metadata.get() else {
            unreachable!("the mode of a step does not change");
        };
        let chain = self.write(call, qkv)?;
        if let Some(tables) = plan.tables.as_ref().filter(|_| self.extends(qkv.q.dtype())) {
            return self.extend(call, tables, qkv.q, &chain);
        }
        let seqs = plan.gathers(&self.reaches, call.shape.reach())?;
        // In every index of this layer, so that its gathers come after the write.
        let zero = chain.slice(&[0], &[1], &[1])?.multiply(&Array::scalar(0_i32)?)?;
        let gather = |slots: &_| {
            let pool = call.kv_pool.borrow();
            let LayerCache::Full(cache) = pool.layer(call.shape.layer_id) else {
                unreachable!("{NAME} does not support the other kinds");
            };
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

    fn forward_rows(&self, call: &AttentionCall<'_>, rows: &QkvRows<'_>) -> Result<Option<Array>> {
        if !rope_kv_write::supports(&rope_spec(call.shape, rows, self.kv_dtype)) {
            return Ok(None);
        }
        match call.metadata.get() {
            Plan::Decode(_) => {
                let (q, chain) = self.rotate_and_write(call, rows)?;
                self.decode(call, &q, &chain).map(Some)
            }
            Plan::Extend(ExtendPlan { tables: Some(tables), .. })
                if self.extends(rows.rows.dtype()) =>
            {
                let (q, chain) = self.rotate_and_write(call, rows)?;
                self.extend(call, tables, &q, &chain).map(Some)
            }
            Plan::Extend(_) => Ok(None),
        }
    }
}
