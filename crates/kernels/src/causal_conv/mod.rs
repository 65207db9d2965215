//! A causal convolution over time, each channel by itself, over a pool of states.
//!
//! The pool is written in place: the contract is that of [`crate::kv_write`]. A request
//! begins with the state `from` (zeros below zero) and leaves its state in `to`; a
//! token whose `saves` is not negative leaves a copy there.
//!
//! Upstream: `sglang/srt/layers/attention/mamba/causal_conv1d_triton.py`.

use mlx::{Array, Dtype};

use crate::{Call, Kernel, KernelError, Kernels, kv_write::CHAIN_LEN, shapes};

/// The kernel.
pub static KERNEL: Kernel = Kernel { name: "causal_conv", body: include_str!("body.inc") };

/// What the kernel knows of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Channels.
    pub channels: usize,
    /// Tokens that an output depends on, its own included.
    pub taps: usize,
    /// Whether a bias is added.
    pub has_bias: bool,
    /// Whether the result goes through SiLU.
    pub silu: bool,
    /// Element type of everything.
    pub dtype: Dtype,
}

/// Which states the requests of a step read and write.
#[derive(Debug, Clone, Copy)]
pub struct StateArrays<'a> {
    /// `[num_reqs, 4]` int32: first token, tokens, the state to begin with, the state
    /// to leave; states below zero are none.
    pub rows: &'a Array,
    /// `[num_tokens]` int32, the state that gets a copy after this token, or -1.
    pub saves: &'a Array,
    /// Computed after all earlier use of the pool; see [`crate::kv_write`].
    pub after: &'a Array,
}

/// Arrays of a layer.
#[derive(Debug, Clone, Copy)]
pub struct ConvInputs<'a> {
    /// `[num_tokens, channels]`.
    pub x: &'a Array,
    /// `[channels, taps]`, the last tap is the token's own.
    pub weight: &'a Array,
    /// `[channels]`.
    pub bias: Option<&'a Array>,
    /// `[num_states, taps - 1, channels]`, written in place.
    pub pool: &'a Array,
}

/// The launch for `num_reqs` requests of `num_tokens` tokens together.
///
/// # Errors
/// A convolution that sees no other token.
pub fn call(spec: &ConvSpec, num_reqs: usize, num_tokens: usize) -> Result<Call, KernelError> {
    if spec.taps < 2 {
        return Err(KernelError::Size { kernel: KERNEL.name, what: "taps", size: spec.taps });
    }
    let threads = spec.channels.next_multiple_of(32).min(128);
    Ok(Call {
        kernel: &KERNEL,
        types: vec![("T", spec.dtype.into())],
        constants: vec![
            ("CHANNELS", spec.channels.into()),
            ("TAPS", spec.taps.into()),
            ("HAS_BIAS", spec.has_bias.into()),
            ("SILU", spec.silu.into()),
        ],
        groups: [spec.channels.div_ceil(threads), num_reqs, 1],
        threads,
        outputs: vec![
            (vec![num_tokens, spec.channels], spec.dtype),
            (vec![CHAIN_LEN], Dtype::Int32),
        ],
    })
}

/// Adds the convolution to the graph. Returns `[num_tokens, channels]` and the chain.
///
/// # Errors
/// Shapes that do not fit the spec, or an error of MLX.
pub fn causal_conv(
    kernels: &Kernels,
    spec: &ConvSpec,
    inputs: &ConvInputs<'_>,
    states: &StateArrays<'_>,
) -> Result<(Array, Array), KernelError> {
    let name = KERNEL.name;
    let [num_tokens, num_reqs] = [states.saves.size(), states.rows.size() / 4];
    let num_states = inputs.pool.shape().first().copied().unwrap_or(0);
    shapes::check(name, "x", inputs.x, &[num_tokens, spec.channels])?;
    shapes::check(name, "weight", inputs.weight, &[spec.channels, spec.taps])?;
    shapes::check(name, "pool", inputs.pool, &[num_states, spec.taps - 1, spec.channels])?;
    shapes::check(name, "rows", states.rows, &[num_reqs, 4])?;
    // A kernel without a bias still has the input: any array will do.
    let bias = inputs.bias.unwrap_or(inputs.weight);
    if spec.has_bias {
        shapes::check(name, "bias", bias, &[spec.channels])?;
    }
    shapes::check_dtype(spec.dtype, &[inputs.x, inputs.weight, bias, inputs.pool])?;
    let call = call(spec, num_reqs, num_tokens)?;
    let arrays =
        [inputs.x, inputs.weight, bias, inputs.pool, states.rows, states.saves, states.after];
    let mut outputs = kernels.run(&call, &arrays)?;
    let chain = outputs.pop();
    Ok(chain.map(|chain| (shapes::single(outputs), chain)).expect("MLX gives both outputs"))
}
