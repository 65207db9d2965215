//! Attention of one new token a request over its pages of the K/V pool.
//!
//! All query heads of a K/V head (up to eight, of wide heads four) are computed from
//! one read of K and V. Long contexts are split over threadgroups; a second kernel adds the
//! parts up. The number of parts is one of a few (a power of two), fixed by the
//! shape of the launch; where a request's parts begin the kernel works out from
//! its length, so the same graph serves any lengths.
//!
//! Upstream: `sglang/srt/layers/attention/triton_ops/decode_attention.py`.

pub mod reference;

use mlx::{Array, Dtype};

use crate::{Call, Constant, Kernel, KernelError, Kernels, KvDtype, Reach, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "paged_decode", body: include_str!("body.inc") };
/// Adds up the parts.
pub static MERGE: Kernel =
    Kernel { name: "paged_decode_merge", body: include_str!("../paged_decode_merge/body.inc") };

/// Widths of a head that the attention kernels know.
pub const HEAD_DIMS: [usize; 7] = [64, 80, 96, 128, 192, 256, 512];
/// Query heads of one K/V head that a threadgroup takes, and those of which a lane would
/// hold more columns than it has registers for.
const MAX_HEADS: usize = 8;
const MAX_WIDE_HEADS: usize = 4;
const SIMDGROUPS: usize = 4;
const MAX_SPLITS: usize = 64;
/// Fewer tokens than this are not worth a part of their own.
const MIN_SPLIT_TOKENS: usize = 128;

/// What the attention kernels know of a layer and its pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub num_heads: usize,
    /// K/V heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// One of [`HEAD_DIMS`].
    pub head_dim: usize,
    /// Tokens in a page, a power of two.
    pub page_size: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Which tokens one sees.
    pub reach: Reach,
    /// Scores `s` become `cap * tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// Whether every head has a sink: a score without a value.
    pub has_sinks: bool,
    /// Element type of queries and results.
    pub dtype: Dtype,
    /// What the rows of the pool are made of.
    pub kv_dtype: KvDtype,
}

impl AttentionSpec {
    /// Query heads of a K/V head.
    pub fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// K/V heads, and their width.
    pub(crate) fn kv_heads(&self) -> [usize; 2] {
        [self.num_kv_heads, self.head_dim]
    }

    /// Query heads of a group that a threadgroup takes together: as evenly as they can be.
    pub(crate) fn heads_together(&self) -> usize {
        let most = if self.head_dim > 256 { MAX_WIDE_HEADS } else { MAX_HEADS };
        self.group().div_ceil(self.group().div_ceil(most))
    }

    pub(crate) fn check(&self, kernel: &'static str) -> Result<(), KernelError> {
        let refuse = |what, size| Err(KernelError::Size { kernel, what, size });
        if !HEAD_DIMS.contains(&self.head_dim) {
            return refuse("a head width", self.head_dim);
        }
        if !self.page_size.is_power_of_two() {
            return refuse("a page size", self.page_size);
        }
        if self.num_kv_heads == 0 || !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return refuse("a number of K/V heads", self.num_kv_heads);
        }
        Ok(())
    }
}

/// Arrays of a decode step.
#[derive(Debug, Clone, Copy)]
pub struct DecodeInputs<'a> {
    /// `[batch, num_heads, head_dim]`.
    pub q: &'a Array,
    /// `[num_slots, num_kv_heads, row]`, see [`KvDtype::row_len`].
    pub k_pool: &'a Array,
    /// As `k_pool`.
    pub v_pool: &'a Array,
    /// `[batch, max_pages]` int32; pages beyond a request's length are not read.
    pub page_table: &'a Array,
    /// `[batch]` int32, this step's token included. 0: the row's result is zero.
    pub seq_lens: &'a Array,
    /// `[num_heads]`, if the spec has sinks.
    pub sinks: Option<&'a Array>,
    /// What [`crate::kv_write`] gave for this layer.
    pub chain: &'a Array,
}

/// The launches of a step: attention, and the sum of its parts if there are any.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodePlan {
    /// Attention.
    pub decode: Call,
    /// The sum of the parts.
    pub merge: Option<Call>,
}

impl DecodePlan {
    /// For `batch` requests of up to `max_seq_len` tokens on a GPU that
    /// `target_groups` threadgroups keep busy.
    ///
    /// # Errors
    /// A size that the kernel does not know.
    pub fn new(
        spec: &AttentionSpec,
        batch: usize,
        max_seq_len: usize,
        target_groups: usize,
    ) -> Result<Self, KernelError> {
        spec.check(KERNEL.name)?;
        let blocks = spec.group().div_ceil(spec.heads_together());
        let groups = batch * spec.num_kv_heads * blocks;
        let visible = spec.reach.most_visible(max_seq_len);
        Ok(Self::with_splits(spec, batch, num_splits(groups, visible, target_groups)))
    }

    /// With a given number of parts.
    pub fn with_splits(spec: &AttentionSpec, batch: usize, splits: usize) -> Self {
        let heads = spec.heads_together();
        let blocks = spec.group().div_ceil(heads);
        let packs = spec.head_dim / spec.kv_dtype.pack_len();
        let lanes = packs.next_power_of_two().min(32);
        let packs = packs.div_ceil(lanes);
        let (out, out_dtype) = if splits > 1 {
            (vec![batch, spec.num_heads, splits, spec.head_dim + 2], Dtype::Float32)
        } else {
            (vec![batch, spec.num_heads * spec.head_dim], spec.dtype)
        };
        let decode = Call {
            kernel: &KERNEL,
            types: vec![("T", spec.dtype.into()), ("KV", spec.kv_dtype), ("OUT", out_dtype.into())],
            constants: vec![
                ("HEAD_DIM", spec.head_dim.into()),
                ("NUM_KV_HEADS", spec.num_kv_heads.into()),
                ("GROUP", spec.group().into()),
                ("HEADS", heads.into()),
                ("PAGE_SHIFT", Constant::Int(spec.page_size.trailing_zeros().cast_signed())),
                ("LANES", lanes.into()),
                ("PACKS", packs.into()),
                ("UNROLL_ROWS", if heads * packs > 4 { 2 } else { 4_usize }.into()),
                ("SIMDGROUPS", SIMDGROUPS.into()),
                ("MERGE_HEADS", heads.min(1024 / spec.head_dim).into()),
                ("SPLIT", (splits > 1).into()),
                ("WINDOW", spec.reach.window.unwrap_or(0).into()),
                ("CHUNK", spec.reach.chunk.unwrap_or(0).into()),
                ("HAS_SINKS", spec.has_sinks.into()),
                ("SCALE", spec.scale.into()),
                ("SOFT_CAP", spec.soft_cap.unwrap_or(0.0).into()),
            ],
            groups: [splits, spec.num_kv_heads * blocks, batch],
            threads: 32 * SIMDGROUPS,
            outputs: vec![(out, out_dtype)],
        };
        Self { decode, merge: (splits > 1).then(|| merge(spec, batch, splits)) }
    }
}

fn num_splits(groups: usize, max_tokens: usize, target_groups: usize) -> usize {
    let wanted = (target_groups / groups.max(1)).min(max_tokens / MIN_SPLIT_TOKENS);
    (wanted.clamp(1, MAX_SPLITS) + 1).next_power_of_two() / 2
}

fn merge(spec: &AttentionSpec, batch: usize, splits: usize) -> Call {
    Call {
        kernel: &MERGE,
        types: vec![("T", spec.dtype.into())],
        constants: vec![
            ("HEAD_DIM", spec.head_dim.into()),
            ("SPLITS", splits.into()),
            ("HAS_SINKS", spec.has_sinks.into()),
        ],
        groups: [1, spec.num_heads, batch],
        threads: spec.head_dim.next_multiple_of(32),
        outputs: vec![(vec![batch, spec.num_heads * spec.head_dim], spec.dtype)],
    }
}

/// Attention of one token a request. Returns `[batch, num_heads * head_dim]`.
///
/// `max_seq_len` bounds the lengths; it only chooses the number of parts.
///
/// # Errors
/// Shapes that do not fit the spec, a size that the kernel does not know, or an
/// error of MLX.
pub fn paged_decode(
    kernels: &Kernels,
    spec: &AttentionSpec,
    inputs: &DecodeInputs<'_>,
    max_seq_len: usize,
) -> Result<Array, KernelError> {
    let name = KERNEL.name;
    let [batch, ..] = *inputs.q.shape() else {
        return Err(KernelError::Size { kernel: name, what: "a rank of q", size: 0 });
    };
    shapes::check(name, "q", inputs.q, &[batch, spec.num_heads, spec.head_dim])?;
    shapes::check(name, "seq_lens", inputs.seq_lens, &[batch])?;
    let pages = inputs.page_table.shape().last().copied().unwrap_or(0);
    shapes::check(name, "page_table", inputs.page_table, &[batch, pages])?;
    shapes::check_pools(name, spec.kv_heads(), spec.kv_dtype, [inputs.k_pool, inputs.v_pool])?;
    // A kernel without sinks still has the input: any array will do.
    let sinks = inputs.sinks.unwrap_or(inputs.chain);
    if spec.has_sinks {
        shapes::check(name, "sinks", sinks, &[spec.num_heads])?;
    }
    let plan = DecodePlan::new(spec, batch, max_seq_len, kernels.target_groups())?;
    let arrays = [
        inputs.q,
        inputs.k_pool,
        inputs.v_pool,
        inputs.page_table,
        inputs.seq_lens,
        sinks,
        inputs.chain,
    ];
    let mut out = shapes::single(kernels.run(&plan.decode, &arrays)?);
    if let Some(merge) = &plan.merge {
        out = shapes::single(kernels.run(merge, &[&out, sinks])?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_the_gpu_and_are_powers_of_two() {
        assert_eq!(num_splits(8 * 32, 2048, 528), 2);
        assert_eq!(num_splits(8, 2048, 528), 16);
        assert_eq!(num_splits(8, 16384, 528), 64);
        assert_eq!(num_splits(8, 100, 528), 1);
        assert_eq!(num_splits(1024, 16384, 528), 1);
        assert_eq!(num_splits(8, 400, 528), 2);
    }
}
