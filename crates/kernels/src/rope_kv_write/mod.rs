//! From the fused q, k, v rows of a layer to attention in one launch: norm of
//! heads (Qwen3's), rotary embedding, K and V into their slots of the pools.
//!
//! The pools are written in place: the contract is that of [`crate::kv_write`].
//!
//! Upstream: `sglang/srt/layers/rotary_embedding.py` (fused set of the K/V buffer).

use mlx::{Array, Dtype};

use crate::{Call, Constant, Kernel, KernelError, Kernels, KvDtype, kv_write::CHAIN_LEN, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "rope_kv_write", body: include_str!("body.inc") };

/// What the kernel knows of a layer and its pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Query heads.
    pub num_heads: usize,
    /// K/V heads.
    pub num_kv_heads: usize,
    /// Width of a head; a multiple of 16 bytes.
    pub head_dim: usize,
    /// The first columns of a head that rotate; half of them a multiple of 16
    /// bytes.
    pub rotary_dim: usize,
    /// Pairs are neighbours, not halves.
    pub traditional: bool,
    /// Factor on the rotated columns (YaRN's).
    pub mscale: f32,
    /// Epsilon of the norm of heads of q and k, if the layer has one.
    pub norm_eps: Option<f32>,
    /// Element type of the rows.
    pub dtype: Dtype,
    /// What the rows of the pool are made of.
    pub kv_dtype: KvDtype,
}

/// Arrays of a step.
#[derive(Debug, Clone, Copy)]
pub struct RopeInputs<'a> {
    /// `[num_tokens, (num_heads + 2 * num_kv_heads) * head_dim]`: q, then k, then v.
    pub qkv: &'a Array,
    /// `[head_dim]` weights of the norms of q and of k, if the spec has norms.
    pub norms: Option<(&'a Array, &'a Array)>,
    /// `[rotary_dim / 2]` f32: radians a position.
    pub inv_freq: &'a Array,
    /// `[num_tokens]` int32.
    pub positions: &'a Array,
    /// `[num_slots, num_kv_heads, row]`, see [`KvDtype::row_len`]; written in place.
    pub k_pool: &'a Array,
    /// As `k_pool`.
    pub v_pool: &'a Array,
    /// `[num_tokens]` int32; below zero: K and V are not written.
    pub slots: &'a Array,
    /// Computed after all earlier use of the slots; see [`crate::kv_write`].
    pub after: &'a Array,
}

/// Whether the kernel knows these widths.
pub fn supports(spec: &RopeSpec) -> bool {
    call(spec, 1).is_ok()
}

/// The launch for `num_tokens` rows.
///
/// # Errors
/// A width that the kernel does not know.
pub fn call(spec: &RopeSpec, num_tokens: usize) -> Result<Call, KernelError> {
    let refuse = |what, size| Err(KernelError::Size { kernel: KERNEL.name, what, size });
    let pack = 16 / spec.dtype.size_in_bytes();
    if !spec.head_dim.is_multiple_of(pack) || spec.head_dim > 64 * pack {
        return refuse("a head width", spec.head_dim);
    }
    if !spec.rotary_dim.is_multiple_of(2 * pack) || spec.rotary_dim > spec.head_dim {
        return refuse("a rotary width", spec.rotary_dim);
    }
    let lanes = (spec.head_dim / pack).next_power_of_two().min(32);
    let all_heads = spec.num_heads + 2 * spec.num_kv_heads;
    let threads = (all_heads * lanes).next_multiple_of(32).min(128);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", spec.dtype.into()), ("KV", spec.kv_dtype)],
        constants: vec![
            ("HEAD_DIM", spec.head_dim.into()),
            ("NUM_HEADS", spec.num_heads.into()),
            ("NUM_KV_HEADS", spec.num_kv_heads.into()),
            ("ROTARY_DIM", spec.rotary_dim.into()),
            ("TRADITIONAL", spec.traditional.into()),
            ("NORM", spec.norm_eps.is_some().into()),
            ("LANES", lanes.into()),
            ("PACKS", (spec.head_dim / pack).div_ceil(lanes).into()),
            ("EPS", Constant::Float(spec.norm_eps.unwrap_or(0.0))),
            ("MSCALE", spec.mscale.into()),
        ],
        groups: [(all_heads * lanes).div_ceil(threads), num_tokens, 1],
        threads,
        outputs: vec![
            (vec![num_tokens, spec.num_heads, spec.head_dim], spec.dtype),
            (vec![CHAIN_LEN], Dtype::Int32),
        ],
    })
}

/// Adds the step to the graph. Returns q, `[num_tokens, num_heads, head_dim]`, and
/// the chain, `[8]` int32.
///
/// # Errors
/// Shapes that do not fit the spec, a width that the kernel does not know, or an
/// error of MLX.
pub fn rope_kv_write(
    kernels: &Kernels,
    spec: &RopeSpec,
    inputs: &RopeInputs<'_>,
) -> Result<(Array, Array), KernelError> {
    let name = KERNEL.name;
    let num_tokens = inputs.positions.size();
    let width = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
    shapes::check(name, "qkv", inputs.qkv, &[num_tokens, width])?;
    shapes::check(name, "inv_freq", inputs.inv_freq, &[spec.rotary_dim / 2])?;
    shapes::check(name, "slots", inputs.slots, &[num_tokens])?;
    let heads = [spec.num_kv_heads, spec.head_dim];
    shapes::check_pools(name, heads, spec.kv_dtype, [inputs.k_pool, inputs.v_pool])?;
    // A kernel without norms still has the inputs: any array will do.
    let (q_norm, k_norm) = inputs.norms.unwrap_or((inputs.qkv, inputs.qkv));
    if spec.norm_eps.is_some() {
        shapes::check(name, "q_norm", q_norm, &[spec.head_dim])?;
        shapes::check(name, "k_norm", k_norm, &[spec.head_dim])?;
    }
    let arrays = [
        inputs.qkv,
        q_norm,
        k_norm,
        inputs.inv_freq,
        inputs.positions,
        inputs.k_pool,
        inputs.v_pool,
        inputs.slots,
        inputs.after,
    ];
    let mut outputs = kernels.run(&call(spec, num_tokens)?, &arrays)?;
    let chain = outputs.pop();
    Ok(chain.map(|chain| (shapes::single(outputs), chain)).expect("MLX gives both outputs"))
}
