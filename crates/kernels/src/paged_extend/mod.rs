//! Attention of several new tokens a request over its pages: the cached prefix,
//! and the new tokens themselves, which are in the pool already.
//!
//! One launch for requests of any lengths, without padding: the host cuts the new
//! tokens of each request into tiles, and a threadgroup takes a tile. f16 and bf16
//! use the matrix unit; f32, for which there is none, a kernel without, and so do heads
//! wider than 256, whose sums do not fit into registers nor their keys into memory.
//!
//! Upstream: `sglang/srt/layers/attention/triton_ops/extend_attention.py`.

use mlx::{Array, Dtype};

use crate::{AttentionSpec, Call, Constant, Kernel, KernelError, Kernels, KvDtype, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "paged_extend", body: include_str!("body.inc") };
/// The kernel on the matrix unit.
pub static TILES: Kernel =
    Kernel { name: "paged_extend_tiles", body: include_str!("../paged_extend_tiles/body.inc") };

const SIMDGROUPS: usize = 4;
/// Widest head on the matrix unit.
const MAX_TILES_HEAD_DIM: usize = 256;
/// Threadgroup memory that every Apple GPU has.
const SHARED_BYTES: usize = 32 * 1024;

/// How the new tokens of a step are cut into tiles. The same for all layers of
/// one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendTiling {
    heads: usize,
    /// Pairs of a token and a head that a simdgroup takes.
    rows: usize,
    block: usize,
    uses_matrix_unit: bool,
}

impl ExtendTiling {
    /// For layers of this shape.
    ///
    /// # Errors
    /// A size that the kernel does not know.
    pub fn new(spec: &AttentionSpec) -> Result<Self, KernelError> {
        spec.check(KERNEL.name)?;
        if has_matrix_unit(spec) && spec.head_dim <= MAX_TILES_HEAD_DIM {
            let bytes_of_token = 2 * 2 * (spec.head_dim + 8);
            let block = [64, 32].into_iter().find(|block| block * bytes_of_token <= SHARED_BYTES);
            return Self::on_matrix_unit(spec, 1, block.unwrap_or(16));
        }
        let heads = spec.heads_together();
        // Half of the memory for the queries; the weights of a block and the
        // block itself, K or V, share the rest.
        let rows = (SHARED_BYTES / 2 / (SIMDGROUPS * spec.head_dim * 4)).min(8);
        let rest = SHARED_BYTES - SIMDGROUPS * rows * (spec.head_dim + 32) * 4;
        let key_size = match spec.kv_dtype {
            KvDtype::Plain(dtype) => dtype.size_in_bytes(),
            // Unpacked on its way there.
            _ => size_of::<f32>(),
        };
        let key_bytes = spec.head_dim * key_size + 16;
        let block = [32, 16, 8].into_iter().find(|block| block * key_bytes <= rest).unwrap_or(4);
        Ok(Self { heads, rows, block, uses_matrix_unit: false })
    }

    /// With `row_tiles` tiles of 16 rows a simdgroup and `block` keys at a time, a
    /// multiple of 16. For measurements.
    ///
    /// # Errors
    /// A size or type that the kernel does not know.
    pub fn on_matrix_unit(
        spec: &AttentionSpec,
        row_tiles: usize,
        block: usize,
    ) -> Result<Self, KernelError> {
        spec.check(TILES.name)?;
        if !has_matrix_unit(spec) {
            return Err(KernelError::ElementType { dtype: spec.dtype });
        }
        if spec.head_dim > MAX_TILES_HEAD_DIM {
            let (kernel, size) = (TILES.name, spec.head_dim);
            return Err(KernelError::Size { kernel, what: "a head width", size });
        }
        if block == 0 || !block.is_multiple_of(16) {
            return Err(KernelError::Size { kernel: TILES.name, what: "a block", size: block });
        }
        let (heads, rows) = (spec.heads_together(), 16 * row_tiles);
        Ok(Self { heads, rows, block, uses_matrix_unit: true })
    }

    /// New tokens of a tile.
    pub fn tile_tokens(&self) -> usize {
        SIMDGROUPS * self.rows / self.heads
    }

    /// The tiles of requests with these numbers of new tokens: request and first
    /// token of each, `[num_tiles, 2]`. Late tiles see more keys and come first.
    pub fn tiles(&self, new_lens: &[usize]) -> Vec<i32> {
        let int = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        let mut tiles: Vec<[i32; 2]> = Vec::new();
        for (request, len) in new_lens.iter().enumerate() {
            let firsts = (0..*len).step_by(self.tile_tokens());
            tiles.extend(firsts.map(|first| [int(request), int(first)]));
        }
        tiles.sort_by_key(|[request, first]| (-first, *request));
        tiles.concat()
    }
}

/// Arrays of an extend step.
#[derive(Debug, Clone, Copy)]
pub struct ExtendInputs<'a> {
    /// `[num_tokens, num_heads, head_dim]`.
    pub q: &'a Array,
    /// `[num_slots, num_kv_heads, row]`, see [`KvDtype::row_len`].
    pub k_pool: &'a Array,
    /// As `k_pool`.
    pub v_pool: &'a Array,
    /// `[batch, max_pages]` int32; pages beyond a request's length are not read.
    pub page_table: &'a Array,
    /// `[batch]` int32: row of `q` of each request's first new token.
    pub starts: &'a Array,
    /// `[batch]` int32: new tokens.
    pub new_lens: &'a Array,
    /// `[batch]` int32: tokens before the new ones.
    pub prefix_lens: &'a Array,
    /// `[num_tiles, 2]` int32, see [`ExtendTiling::tiles`].
    pub tiles: &'a Array,
    /// `[num_heads]`, if the spec has sinks.
    pub sinks: Option<&'a Array>,
    /// What [`crate::kv_write`] gave for this layer.
    pub chain: &'a Array,
}

/// Whether the matrix unit takes keys and queries: of one type of 16 bits, which packed
/// keys are unpacked to.
fn has_matrix_unit(spec: &AttentionSpec) -> bool {
    let is_same = spec.kv_dtype.is_packed() || spec.kv_dtype == KvDtype::Plain(spec.dtype);
    is_same && spec.dtype != Dtype::Float32
}

/// The launch for `num_tiles` tiles of `num_tokens` new tokens in all.
pub fn call(
    spec: &AttentionSpec,
    tiling: ExtendTiling,
    num_tokens: usize,
    num_tiles: usize,
) -> Call {
    let blocks = spec.group().div_ceil(tiling.heads);
    let types = vec![("T", spec.dtype.into()), ("KV", spec.kv_dtype)];
    let mut constants: Vec<(&'static str, Constant)> = vec![
        ("HEAD_DIM", spec.head_dim.into()),
        ("NUM_KV_HEADS", spec.num_kv_heads.into()),
        ("GROUP", spec.group().into()),
        ("HEADS", tiling.heads.into()),
        ("PAGE_SHIFT", Constant::Int(spec.page_size.trailing_zeros().cast_signed())),
        ("TILE_TOKENS", tiling.tile_tokens().into()),
        ("SIMDGROUPS", SIMDGROUPS.into()),
        ("BLOCK", tiling.block.into()),
        ("WINDOW", spec.reach.window.unwrap_or(0).into()),
        ("CHUNK", spec.reach.chunk.unwrap_or(0).into()),
        ("HAS_SINKS", spec.has_sinks.into()),
        ("SCALE", spec.scale.into()),
        ("SOFT_CAP", spec.soft_cap.unwrap_or(0.0).into()),
    ];
    let kernel = if tiling.uses_matrix_unit {
        constants.push(("ROW_TILES", (tiling.rows / 16).into()));
        &TILES
    } else {
        constants.push(("ROWS", tiling.rows.into()));
        &KERNEL
    };
    Call {
        kernel,
        types,
        constants,
        groups: [num_tiles, spec.num_kv_heads * blocks, 1],
        threads: 32 * SIMDGROUPS,
        outputs: vec![(vec![num_tokens, spec.num_heads, spec.head_dim], spec.dtype)],
    }
}

/// Attention of all new tokens. Returns `[num_tokens, num_heads, head_dim]`.
///
/// # Errors
/// Shapes that do not fit the spec, a size that the kernel does not know, or an
/// error of MLX.
pub fn paged_extend(
    kernels: &Kernels,
    spec: &AttentionSpec,
    inputs: &ExtendInputs<'_>,
) -> Result<Array, KernelError> {
    paged_extend_tiled(kernels, spec, ExtendTiling::new(spec)?, inputs)
}

/// The same with tiles of the caller's choice, for measurements.
///
/// # Errors
/// As [`paged_extend`].
pub fn paged_extend_tiled(
    kernels: &Kernels,
    spec: &AttentionSpec,
    tiling: ExtendTiling,
    inputs: &ExtendInputs<'_>,
) -> Result<Array, KernelError> {
    let name = KERNEL.name;
    let num_tokens = inputs.q.shape().first().copied().unwrap_or(0);
    let batch = inputs.new_lens.size();
    shapes::check(name, "q", inputs.q, &[num_tokens, spec.num_heads, spec.head_dim])?;
    shapes::check_pools(name, spec.kv_heads(), spec.kv_dtype, [inputs.k_pool, inputs.v_pool])?;
    let pages = inputs.page_table.shape().last().copied().unwrap_or(0);
    shapes::check(name, "page_table", inputs.page_table, &[batch, pages])?;
    shapes::check(name, "starts", inputs.starts, &[batch])?;
    shapes::check(name, "prefix_lens", inputs.prefix_lens, &[batch])?;
    let num_tiles = inputs.tiles.size() / 2;
    shapes::check(name, "tiles", inputs.tiles, &[num_tiles, 2])?;
    // A kernel without sinks still has the input: any array will do.
    let sinks = inputs.sinks.unwrap_or(inputs.chain);
    if spec.has_sinks {
        shapes::check(name, "sinks", sinks, &[spec.num_heads])?;
    }
    let arrays = [
        inputs.q,
        inputs.k_pool,
        inputs.v_pool,
        inputs.page_table,
        inputs.starts,
        inputs.new_lens,
        inputs.prefix_lens,
        inputs.tiles,
        sinks,
        inputs.chain,
    ];
    let call = call(spec, tiling, num_tokens, num_tiles);
    Ok(shapes::single(kernels.run(&call, &arrays)?))
}
