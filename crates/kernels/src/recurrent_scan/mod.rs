//! Linear attention as a recurrence: a matrix for each head that every token decays,
//! writes to and reads from.
//!
//! ```text
//! S = S * decay                       by head, or by column
//! u = (v - S k) * beta                the delta rule; without it u = v
//! S = S + u k'
//! out = S q
//! ```
//!
//! Gated DeltaNet (Yang et al., 2024), Kimi's with a decay for each column, and Mamba 2
//! (Dao and Gu, 2024: `k` is B, `q` is C, `v` is the input times its step) are all of
//! it. The pool is written in place as by [`crate::causal_conv`].
//!
//! Upstream: `sglang/srt/layers/attention/fla/fused_recurrent.py`.

use mlx::{Array, Dtype};

use crate::{
    Call, Kernel, KernelError, Kernels, causal_conv::StateArrays, kv_write::CHAIN_LEN, shapes,
};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "recurrent_scan", body: include_str!("body.inc") };

/// What the kernel knows of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanSpec {
    /// Heads of q and k; divides `value_heads`.
    pub key_heads: usize,
    /// Heads of v, each with a matrix.
    pub value_heads: usize,
    /// Width of a head of q and k.
    pub key_dim: usize,
    /// Width of a head of v.
    pub value_dim: usize,
    /// Whether what the matrix knows of a key is replaced, not added to.
    pub delta: bool,
    /// Whether each column of the matrix has a decay of its own.
    pub column_decay: bool,
    /// Element type of q, k, v and the result.
    pub dtype: Dtype,
}

impl ScanSpec {
    /// Elements of a state.
    pub fn state_size(&self) -> usize {
        self.value_heads * self.value_dim * self.key_dim
    }
}

/// Arrays of a layer.
#[derive(Debug, Clone, Copy)]
pub struct ScanInputs<'a> {
    /// `[num_tokens, key_heads, key_dim]`, scaled.
    pub q: &'a Array,
    /// As `q`.
    pub k: &'a Array,
    /// `[num_tokens, value_heads, value_dim]`.
    pub v: &'a Array,
    /// `[num_tokens, value_heads]` f32, or `[num_tokens, value_heads, key_dim]`.
    pub decay: &'a Array,
    /// `[num_tokens, value_heads]` f32; with the delta rule.
    pub beta: Option<&'a Array>,
    /// `[num_states, value_heads, value_dim, key_dim]` f32, written in place.
    pub pool: &'a Array,
}

/// The launch for `num_reqs` requests of `num_tokens` tokens together.
///
/// # Errors
/// Heads that do not divide, or a key wider than a simdgroup's registers.
pub fn call(spec: &ScanSpec, num_reqs: usize, num_tokens: usize) -> Result<Call, KernelError> {
    let refuse = |what, size| Err(KernelError::Size { kernel: KERNEL.name, what, size });
    if spec.key_heads == 0 || !spec.value_heads.is_multiple_of(spec.key_heads) {
        return refuse("key heads", spec.key_heads);
    }
    if spec.key_dim == 0 || spec.key_dim > 512 {
        return refuse("a key width", spec.key_dim);
    }
    let simdgroups = [4, 2, 1].into_iter().find(|&count| spec.value_dim.is_multiple_of(count));
    let simdgroups = simdgroups.expect("1 divides every width");
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", spec.dtype.into())],
        constants: vec![
            ("KEY_HEADS", spec.key_heads.into()),
            ("VALUE_HEADS", spec.value_heads.into()),
            ("KEY_DIM", spec.key_dim.into()),
            ("VALUE_DIM", spec.value_dim.into()),
            ("PER_LANE", spec.key_dim.div_ceil(32).into()),
            ("DELTA", spec.delta.into()),
            ("COLUMN_DECAY", spec.column_decay.into()),
        ],
        groups: [spec.value_dim / simdgroups, spec.value_heads, num_reqs],
        threads: 32 * simdgroups,
        outputs: vec![
            (vec![num_tokens, spec.value_heads, spec.value_dim], spec.dtype),
            (vec![CHAIN_LEN], Dtype::Int32),
        ],
    })
}

/// Whether the kernel knows these widths.
pub fn supports(spec: &ScanSpec) -> bool {
    call(spec, 1, 1).is_ok()
}

/// Adds the scan to the graph. Returns `[num_tokens, value_heads, value_dim]` and the
/// chain.
///
/// # Errors
/// Shapes that do not fit the spec, or an error of MLX.
pub fn recurrent_scan(
    kernels: &Kernels,
    spec: &ScanSpec,
    inputs: &ScanInputs<'_>,
    states: &StateArrays<'_>,
) -> Result<(Array, Array), KernelError> {
    let name = KERNEL.name;
    let [num_tokens, num_reqs] = [states.saves.size(), states.rows.size() / 4];
    let keys = [num_tokens, spec.key_heads, spec.key_dim];
    let values = [num_tokens, spec.value_heads, spec.value_dim];
    let num_states = inputs.pool.shape().first().copied().unwrap_or(0);
    let pool = [num_states, spec.value_heads, spec.value_dim, spec.key_dim];
    shapes::check(name, "q", inputs.q, &keys)?;
    shapes::check(name, "k", inputs.k, &keys)?;
    shapes::check(name, "v", inputs.v, &values)?;
    shapes::check(name, "pool", inputs.pool, &pool)?;
    shapes::check(name, "rows", states.rows, &[num_reqs, 4])?;
    match spec.column_decay {
        true => shapes::check(name, "decay", inputs.decay, &[num_tokens, values[1], keys[2]])?,
        false => shapes::check(name, "decay", inputs.decay, &values[..2])?,
    }
    // Without the delta rule the kernel still has the input: any array will do.
    let beta = inputs.beta.unwrap_or(inputs.decay);
    if spec.delta {
        shapes::check(name, "beta", beta, &values[..2])?;
    }
    shapes::check_dtype(spec.dtype, &[inputs.q, inputs.k, inputs.v])?;
    shapes::check_dtype(Dtype::Float32, &[inputs.decay, beta, inputs.pool])?;
    let call = call(spec, num_reqs, num_tokens)?;
    let ScanInputs { q, k, v, decay, pool, .. } = *inputs;
    let arrays = [q, k, v, decay, beta, pool, states.rows, states.saves, states.after];
    let mut outputs = kernels.run(&call, &arrays)?;
    let chain = outputs.pop();
    Ok(chain.map(|chain| (shapes::single(outputs), chain)).expect("MLX gives both outputs"))
}
