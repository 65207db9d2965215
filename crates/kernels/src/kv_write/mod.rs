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

use crate::{Call, Kernel, KernelError, Kernels, shapes};

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
    /// `[num_slots, num_kv_heads, head_dim]`, written in place.
    pub k_pool: &'a Array,
    /// As `k_pool`.
    pub v_pool: &'a Array,
    /// `[num_tokens]` int32; below zero: the row is not written.
    pub slots: &'a Array,
    /// Computed after all earlier use of the slots; see the contract.
    pub after: &'a Array,
}

/// The launch for `num_tokens` rows of `row_size` (`num_kv_heads * head_dim`).
///
/// # Errors
/// Rows that are not a multiple of 16 bytes.
pub fn call(
    num_tokens: usize,
    row_size: usize,
    dtype: Dtype,
    kv_dtype: Dtype,
) -> Result<Call, KernelError> {
    let pack = 16 / kv_dtype.size_in_bytes();
    if !row_size.is_multiple_of(pack) {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "a row", size: row_size });
    }
    let threads = (row_size / pack).next_multiple_of(32).min(256);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", dtype), ("KV", kv_dtype)],
        constants: vec![("ROW_SIZE", row_size.into())],
        groups: [(row_size / pack).div_ceil(threads), num_tokens, 1],
        threads,
        outputs: vec![(vec![CHAIN_LEN], Dtype::Int32)],
    })
}

/// Adds a write to the graph. Returns the chain, `[8]` int32.
///
/// # Errors
/// Shapes that do not fit each other, or an error of MLX.
pub fn kv_write(kernels: &Kernels, inputs: &KvWriteInputs<'_>) -> Result<Array, KernelError> {
    let name = KERNEL.name;
    let [num_tokens, num_kv_heads, head_dim] = *inputs.k.shape() else {
        let size = inputs.k.shape().len();
        return Err(KernelError::Size { kernel: name, what: "a rank of k", size });
    };
    let slots = inputs.k_pool.shape().first().copied().unwrap_or(0);
    shapes::check(name, "v", inputs.v, &inputs.k.shape())?;
    shapes::check(name, "k_pool", inputs.k_pool, &[slots, num_kv_heads, head_dim])?;
    shapes::check(name, "v_pool", inputs.v_pool, &[slots, num_kv_heads, head_dim])?;
    shapes::check(name, "slots", inputs.slots, &[num_tokens])?;
    let call = call(num_tokens, num_kv_heads * head_dim, inputs.k.dtype(), inputs.k_pool.dtype())?;
    let arrays = [inputs.k, inputs.v, inputs.k_pool, inputs.v_pool, inputs.slots, inputs.after];
    Ok(shapes::single(kernels.run(&call, &arrays)?))
}
