//! Writes K and V of new tokens to their slots of the pools, in place.
//!
//! # The contract
//! MLX allocates the outputs of every kernel, so a kernel that returned the pool
//! would copy it. This one takes the pools as *inputs* and writes through them.
//! MLX does not know; what keeps order is left to the caller:
//!
//! 1. **After the write**: the result is a small array, the *chain*. Whatever
//!    reads the written slots takes the chain as an input and so runs later. The
//!    chain's values mean nothing.
//! 2. **Before the write**: `after` is any int32 array that is computed after
//!    everything that read or wrote these slots before: the ids sampled by the
//!    previous step, say, since all of its attention comes before them, or the
//!    chain of the previous write if nothing read in between.
//! 3. A chain that nobody uses is not computed, and nothing is written.
//! 4. The pools are row-contiguous arrays that own their buffers and are computed
//!    already. MLX would copy anything else, and the write would go to the copy.
//! 5. Nobody donates the pools: they are only ever inputs of kernels of ours.
//! 6. No slot occurs twice in a call, unless it is negative.
//!
//! Upstream: `sglang/srt/mem_cache/memory_pool.py` (`set_kv_buffer`).

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, KvDtype, kv_row, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "kv_write", body: include_str!("body.inc") };

/// Elements of a chain: enough that MLX hands every chain over in device memory.
pub const CHAIN_LEN: usize = 8;

/// Arrays of a write.
#[derive(Debug, Clone, Copy)]
pub struct KvWriteInputs<'a> {
    /// `[num_tokens, num_kv_heads, head_dim]`.
    pub k: &'a Array,
    /// As `k`.
    pub v: &'a Array,
    /// `[num_slots, num_kv_heads, row]`, see [`KvDtype::row_len`]; written in place.
    pub k_pool: &'a Array,
    /// As `k_pool`.
    pub v_pool: &'a Array,
    /// `[num_tokens]` int32; below zero: the row is not written.
    pub slots: &'a Array,
    /// Computed after all earlier use of the slots; see the contract.
    pub after: &'a Array,
}

/// The launch for `num_tokens` tokens.
///
/// # Errors
/// Heads whose columns are not whole packs.
pub fn call(
    num_tokens: usize,
    [num_kv_heads, head_dim]: [usize; 2],
    dtype: Dtype,
    kv_dtype: KvDtype,
) -> Result<Call, KernelError> {
    let pack = kv_dtype.pack_len();
    // Plain heads stand side by side in the pool as they do in the input: one row.
    let (num_rows, width) = match kv_dtype {
        KvDtype::Plain(_) => (1, num_kv_heads * head_dim),
        _ => (num_kv_heads, head_dim),
    };
    if !width.is_multiple_of(pack) {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a row", size: width });
    }
    let team = match kv_dtype {
        KvDtype::Plain(_) => width / pack,
        _ => width.next_multiple_of(kv_row::GROUP) / pack,
    };
    let threads = (num_rows * team).next_multiple_of(32).min(256);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", dtype.into()), ("KV", kv_dtype)],
        constants: vec![
            ("HEAD_DIM", width.into()),
            ("NUM_ROWS", num_rows.into()),
            ("TEAM", team.into()),
        ],
        groups: [(num_rows * team).div_ceil(threads), num_tokens, 1],
        threads,
        outputs: vec![(vec![CHAIN_LEN], Dtype::Int32)],
    })
}

/// Adds a write to the graph. Returns the chain, `[8]` int32.
///
/// # Errors
/// Shapes that do not fit each other, or an error of MLX.
pub fn kv_write(
    kernels: &Kernels,
    kv_dtype: KvDtype,
    inputs: &KvWriteInputs<'_>,
) -> Result<Array, KernelError> {
    let name = KERNEL.name;
    let [num_tokens, num_kv_heads, head_dim] = *inputs.k.shape() else {
        let size = inputs.k.shape().len();
        return Err(KernelError::Size { kernel: name, what: "a rank of k", size });
    };
    let heads = [num_kv_heads, head_dim];
    shapes::check(name, "v", inputs.v, &inputs.k.shape())?;
    shapes::check_pools(name, heads, kv_dtype, [inputs.k_pool, inputs.v_pool])?;
    shapes::check(name, "slots", inputs.slots, &[num_tokens])?;
    let call = call(num_tokens, heads, inputs.k.dtype(), kv_dtype)?;
    let arrays = [inputs.k, inputs.v, inputs.k_pool, inputs.v_pool, inputs.slots, inputs.after];
    Ok(shapes::single(kernels.run(&call, &arrays)?))
}
