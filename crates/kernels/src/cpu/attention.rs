//! Attention over the paged K/V pool on the CPU device, prompts and decode
//! steps alike, with the write of the step's own K and V.
//!
//! A task is a tile of query rows of one request and one K/V head: all query
//! heads of the group, so that they share each read of K and V. Its keys are
//! taken in segments of fixed place, each with a softmax of its own, merged in
//! order. Where there are too few tiles for the cores (decode of few long
//! requests), segments become tasks of their own; the sums are the same. Memory
//! is a few blocks a thread, whatever the context.
//!
//! Upstream: `sglang/srt/layers/attention/triton_ops/` (`extend_attention.py`,
//! `decode_attention.py`); the online softmax is Milakov and Gimelshein's (2018).

use std::{cell::RefCell, ops::Range, sync::Arc};

use half::{bf16, f16};
use mlx::{
    Array, Dtype, Result,
    cpu_kernel::{CpuKernel, Operands, Output},
};

use crate::KvDtype;

use super::{
    chain::node_in_place,
    floats::{to_f32, with_f32_output},
    lanes::{LANES, with_best},
    parallel::{num_threads, parallel_for},
};
use crate::Reach;

#[cfg(test)]
mod tests;
mod tile;

use tile::{BLOCK, Merge, Partial, Queries, STRIP, Scratch, Segment};

/// Keys of a segment.
const SEGMENT: usize = 2 * BLOCK;
/// Query rows of a tile, about.
const TILE_ROWS: usize = 64;

/// What a layer's attention is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttentionParams {
    /// Query heads.
    pub num_heads: usize,
    /// K/V heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What packed rows of the pools are made of; `None`: as their arrays say.
    pub packed: Option<KvDtype>,
    /// Factor on the scores.
    pub scale: f32,
    /// Which tokens one sees.
    pub reach: Reach,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// A score of each head, `[num_heads]`, that takes weight and gives no value.
    pub sinks: Option<Vec<f32>>,
}

/// One request's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionSeq {
    /// Its first row.
    pub start: usize,
    /// Its rows.
    pub len: usize,
    /// Tokens before them, in the pool.
    pub prefix_len: usize,
    /// Pages of the whole sequence, in order.
    pub pages: Vec<u32>,
}

/// All requests of a step, for all layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionPlan {
    /// In the order of their rows.
    pub seqs: Vec<AttentionSeq>,
    /// Tokens in a page.
    pub page_size: usize,
}

/// Arrays of a layer's attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// `[num_tokens, num_heads, head_dim]`.
    pub q: &'a Array,
    /// `[num_tokens, num_kv_heads, head_dim]`.
    pub k: &'a Array,
    /// As `k`.
    pub v: &'a Array,
    /// `[num_tokens]` int32, where K and V of each token go.
    pub slots: &'a Array,
    /// `[num_slots, num_kv_heads, row]`, see [`KvDtype::row_len`]; written in place.
    pub k_pool: &'a Array,
    /// As `k_pool`.
    pub v_pool: &'a Array,
    /// Whether K and V are written; otherwise an earlier kernel wrote them.
    pub writes: bool,
}

/// Writes K and V to their slots, then attends. Returns
/// `[num_tokens, num_heads * head_dim]` in the type of `q`.
///
/// The pools must be evaluated arrays that own their buffers. Until the result
/// is evaluated nothing may read them but kernels of the same stream: the host
/// would see rows half written.
///
/// # Errors
/// Those of MLX. What does not fit fails when the node is evaluated.
pub fn paged_attention(
    params: &Arc<AttentionParams>,
    plan: &Arc<AttentionPlan>,
    arrays: AttentionInputs<'_>,
) -> Result<Array> {
    let AttentionInputs { q, k, v, slots, k_pool, v_pool, writes } = arrays;
    let kernel = PagedAttention { params: Arc::clone(params), plan: Arc::clone(plan), writes };
    let shape = [q.dim(0), params.num_heads * params.head_dim];
    let outputs: &[(&[usize], Dtype)] = &[(&shape, q.dtype())];
    // SAFETY: the pools belong to steps of one thread and one stream, which is
    // what callers are told above.
    let out =
        unsafe { node_in_place(Arc::new(kernel), &[q, k, v, slots], &[k_pool, v_pool], outputs) };
    Ok(out?.remove(0))
}

struct PagedAttention {
    params: Arc<AttentionParams>,
    plan: Arc<AttentionPlan>,
    writes: bool,
}

impl CpuKernel for PagedAttention {
    fn run(&self, operands: Operands<'_>) {
        let Operands { inputs, mut in_place, mut outputs } = operands;
        let [q, k, v, slots] = inputs[..] else { panic!("four inputs") };
        let AttentionParams { num_kv_heads, head_dim, packed, .. } = *self.params;
        for (pool, rows) in in_place.iter_mut().zip([k, v]).filter(|_| self.writes) {
            let rows = to_f32(rows);
            match packed {
                Some(dtype) => {
                    let shape = [num_kv_heads, head_dim];
                    pack_rows(pool.as_mut_slice(), dtype, &rows, slots.as_slice(), shape);
                }
                None => write_rows(pool, &rows, slots.as_slice(), num_kv_heads * head_dim),
            }
        }
        let q = to_f32(q);
        let [k_pool, v_pool] = &mut in_place[..] else { panic!("two pools") };
        let pools = [Pool::new(k_pool, packed), Pool::new(v_pool, packed)];
        with_f32_output(&mut outputs[0], |out| attend(&self.params, &self.plan, pools, &q, out));
    }
}

/// Writes rows of `width` to their slots.
fn write_rows(pool: &mut Output<'_>, rows: &[f32], slots: &[i32], width: usize) {
    let places = slots.iter().zip(rows.chunks_exact(width));
    let places = places.filter_map(|(&slot, row)| Some((usize::try_from(slot).ok()? * width, row)));
    match pool.dtype() {
        Dtype::Float32 => {
            let pool = pool.as_mut_slice::<f32>();
            places.for_each(|(at, row)| pool[at..at + width].copy_from_slice(row));
        }
        Dtype::Bfloat16 => {
            let pool = pool.as_mut_slice::<bf16>();
            for (at, row) in places {
                for (to, from) in pool[at..at + width].iter_mut().zip(row) {
                    *to = bf16::from_f32(*from);
                }
            }
        }
        Dtype::Float16 => {
            let pool = pool.as_mut_slice::<f16>();
            for (at, row) in places {
                for (to, from) in pool[at..at + width].iter_mut().zip(row) {
                    *to = f16::from_f32(*from);
                }
            }
        }
        other => panic!("a pool of {other}"),
    }
}

/// Packs rows of all heads into their slots.
fn pack_rows(
    pool: &mut [u8],
    dtype: KvDtype,
    rows: &[f32],
    slots: &[i32],
    [num_kv_heads, head_dim]: [usize; 2],
) {
    let row_len = dtype.row_len(head_dim);
    for (slot, heads) in slots.iter().zip(rows.chunks_exact(num_kv_heads * head_dim)) {
        let Ok(slot) = usize::try_from(*slot) else { continue };
        let to = pool[slot * num_kv_heads * row_len..].chunks_exact_mut(row_len);
        to.zip(heads.chunks_exact(head_dim)).for_each(|(row, head)| dtype.pack(head, row));
    }
}

/// A pool while it is read.
#[derive(Clone, Copy)]
enum Pool<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    Packed(KvDtype, &'a [u8]),
}

impl<'a> Pool<'a> {
    fn new(pool: &'a mut Output<'_>, packed: Option<KvDtype>) -> Self {
        if let Some(dtype) = packed {
            return Self::Packed(dtype, pool.as_mut_slice());
        }
        match pool.dtype() {
            Dtype::Float32 => Self::F32(pool.as_mut_slice()),
            Dtype::Bfloat16 => Self::Bf16(pool.as_mut_slice()),
            Dtype::Float16 => Self::F16(pool.as_mut_slice()),
            other => panic!("a pool of {other}"),
        }
    }

    /// Reads the row of this number, counted over heads and slots, as wide as `row`.
    #[inline(always)]
    fn read(&self, number: usize, row: &mut [f32]) {
        let range = number * row.len()..(number + 1) * row.len();
        match self {
            Self::Packed(dtype, pool) => {
                let row_len = dtype.row_len(row.len());
                dtype.unpack(&pool[number * row_len..][..row_len], row);
            }
            Self::F32(pool) => row.copy_from_slice(&pool[range]),
            Self::Bf16(pool) => {
                for (to, from) in row.iter_mut().zip(&pool[range]) {
                    *to = from.to_f32();
                }
            }
            Self::F16(pool) => {
                for (to, from) in row.iter_mut().zip(&pool[range]) {
                    *to = from.to_f32();
                }
            }
        }
    }
}

/// Keys and values of one K/V head of one request.
#[derive(Clone, Copy)]
struct KvRows<'a> {
    pools: [Pool<'a>; 2],
    pages: &'a [u32],
    page_size: usize,
    num_kv_heads: usize,
    kv_head: usize,
}

impl KvRows<'_> {
    /// Number of a key's row in the pools.
    fn number(&self, key: usize) -> usize {
        let page = self.pages[key / self.page_size] as usize;
        let slot = page * self.page_size + key % self.page_size;
        slot * self.num_kv_heads + self.kv_head
    }
}

impl AttentionParams {
    /// `head_dim`, rounded up to whole vectors.
    fn width(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Keys that the query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        self.reach.first_visible(position)..position + 1
    }
}

/// Rows of one request that one K/V head's tile holds.
#[derive(Clone)]
struct Tile {
    seq: usize,
    kv_head: usize,
    /// Tokens, from the first of the request's in this step.
    tokens: Range<usize>,
    /// Segments that some row sees.
    segments: Range<usize>,
}

struct Step<'a> {
    params: &'a AttentionParams,
    plan: &'a AttentionPlan,
    pools: [Pool<'a>; 2],
    q: &'a [f32],
    out: OutRows,
}

#[derive(Clone, Copy)]
struct OutRows(*mut f32);

// SAFETY: tiles write different rows.
unsafe impl Send for OutRows {}
// SAFETY: as above.
unsafe impl Sync for OutRows {}

thread_local! {
    /// Plain buffers, kept from call to call.
    static BUFFERS: RefCell<(Queries, Scratch, Partial, Partial)> = RefCell::default();
}

fn attend(
    params: &AttentionParams,
    plan: &AttentionPlan,
    pools: [Pool<'_>; 2],
    q: &[f32],
    out: &mut [f32],
) {
    let num_tokens: usize = plan.seqs.iter().map(|seq| seq.len).sum();
    assert_eq!(q.len(), num_tokens * params.num_heads * params.head_dim, "rows of q");
    assert_eq!(out.len(), q.len(), "rows of the result");
    let step = Step { params, plan, pools, q, out: OutRows(out.as_mut_ptr()) };
    let tiles = tiles(params, plan);
    let num_segments: usize = tiles.iter().map(|tile| tile.segments.len()).sum();
    if tiles.len() >= 4 * num_threads() || num_segments == tiles.len() {
        // The longest last would leave one core working alone.
        parallel_for(tiles.len(), |index| step.whole(&tiles[tiles.len() - 1 - index]));
    } else {
        step.split(&tiles);
    }
}

fn tiles(params: &AttentionParams, plan: &AttentionPlan) -> Vec<Tile> {
    let tokens_per_tile = (TILE_ROWS / params.group()).max(1);
    let mut tiles = Vec::new();
    for (index, seq) in plan.seqs.iter().enumerate() {
        for first in (0..seq.len).step_by(tokens_per_tile) {
            let tokens = first..(first + tokens_per_tile).min(seq.len);
            let begin = params.visible(seq.prefix_len + first).start;
            let end = seq.prefix_len + tokens.end;
            let segments = begin / SEGMENT..end.div_ceil(SEGMENT);
            for kv_head in 0..params.num_kv_heads {
                let (tokens, segments) = (tokens.clone(), segments.clone());
                tiles.push(Tile { seq: index, kv_head, tokens, segments });
            }
        }
    }
    tiles
}

impl Step<'_> {
    /// A tile from its first segment to its result.
    fn whole(&self, tile: &Tile) {
        BUFFERS.with_borrow_mut(|(queries, scratch, part, total)| {
            self.queries(tile, queries);
            total.reset(queries.visible.len(), self.params.width());
            for segment in tile.segments.clone() {
                self.segment(tile, segment, queries, scratch, part);
                with_best(Merge { total, part, width: self.params.width() });
            }
            self.finish(tile, total);
        });
    }

    /// Every segment of every tile by itself, then the sums.
    fn split(&self, tiles: &[Tile]) {
        let jobs: Vec<(usize, usize)> = tiles
            .iter()
            .enumerate()
            .flat_map(|(index, tile)| tile.segments.clone().map(move |segment| (index, segment)))
            .collect();
        let parts: Vec<_> =
            jobs.iter().map(|_| std::sync::Mutex::new(Partial::default())).collect();
        parallel_for(jobs.len(), |job| {
            let (tile, segment) = (&tiles[jobs[job].0], jobs[job].1);
            let mut part = parts[job].lock().unwrap_or_else(|poison| poison.into_inner());
            BUFFERS.with_borrow_mut(|(queries, scratch, ..)| {
                self.queries(tile, queries);
                self.segment(tile, segment, queries, scratch, &mut part);
            });
        });
        let mut parts = parts.into_iter();
        for tile in tiles {
            let width = self.params.width();
            let mut total = Partial::default();
            for part in parts.by_ref().take(tile.segments.len()) {
                let part = part.into_inner().unwrap_or_else(|poison| poison.into_inner());
                if total.m.is_empty() {
                    total.reset(part.m.len(), width);
                }
                with_best(Merge { total: &mut total, part: &part, width });
            }
            self.finish(tile, &total);
        }
    }

    /// Scaled rows of q, and what each sees: token by token, its heads together.
    fn queries(&self, tile: &Tile, queries: &mut Queries) {
        let params = self.params;
        let (dim, width, group) = (params.head_dim, params.width(), params.group());
        let seq = &self.plan.seqs[tile.seq];
        let rows = (tile.tokens.len() * group).next_multiple_of(STRIP);
        queries.q.clear();
        queries.q.resize(rows * width, 0.0);
        queries.visible.clear();
        for token in tile.tokens.clone() {
            for head in 0..group {
                let row = queries.visible.len();
                let head = tile.kv_head * group + head;
                let from = ((seq.start + token) * params.num_heads + head) * dim;
                let to = &mut queries.q[row * width..][..dim];
                for (to, from) in to.iter_mut().zip(&self.q[from..from + dim]) {
                    *to = from * params.scale;
                }
                queries.visible.push(params.visible(seq.prefix_len + token));
            }
        }
        queries.visible.resize(rows, 0..0);
    }

    fn segment(
        &self,
        tile: &Tile,
        segment: usize,
        queries: &Queries,
        scratch: &mut Scratch,
        out: &mut Partial,
    ) {
        let params = self.params;
        let seq = &self.plan.seqs[tile.seq];
        out.reset(queries.visible.len(), params.width());
        let end = (seq.prefix_len + tile.tokens.end).min((segment + 1) * SEGMENT);
        let rows = KvRows {
            pools: self.pools,
            pages: &seq.pages,
            page_size: self.plan.page_size,
            num_kv_heads: params.num_kv_heads,
            kv_head: tile.kv_head,
        };
        with_best(Segment { params, rows, queries, keys: segment * SEGMENT..end, scratch, out });
    }

    /// Weighted sums to results, with the sinks.
    fn finish(&self, tile: &Tile, total: &Partial) {
        let params = self.params;
        let (dim, width, group) = (params.head_dim, params.width(), params.group());
        let seq = &self.plan.seqs[tile.seq];
        let rows = tile.tokens.clone().flat_map(|token| (0..group).map(move |head| (token, head)));
        for (row, (token, head)) in rows.enumerate() {
            let head = tile.kv_head * group + head;
            let mut factor = 1.0 / total.l[row];
            if let Some(sinks) = &params.sinks {
                let m = total.m[row].max(sinks[head]);
                let scale = (total.m[row] - m).exp();
                factor = scale / (total.l[row] * scale + (sinks[head] - m).exp());
            }
            let to = ((seq.start + token) * params.num_heads + head) * dim;
            for (at, value) in total.acc[row * width..][..dim].iter().enumerate() {
                // SAFETY: inside the result, whose length was checked against
                // the plan, and in this tile's rows.
                unsafe { *self.out.0.add(to + at) = value * factor };
            }
        }
    }
}
