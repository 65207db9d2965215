//! Mamba 2: a state space whose decay is one number a head and a token, between a short
//! convolution and a gated norm. As linear attention it adds, and replaces nothing: B is
//! the key, C the query, the input times its step the value.
//!
//! Upstream: `sglang/srt/layers/attention/mamba/mamba.py` (`MambaMixer2`); Dao, Gu:
//! Transformers are SSMs (2024).

use attention::{CausalConv, ForwardBatch, RecurrentScan, ScanRows, StateShape};
use mlx::{Array, Dtype, Result, fast};
use nn::{Linear, LoadError, Weights, softplus};

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MambaDims {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// Heads share B and C by groups; divides `heads`.
    pub(crate) groups: usize,
    /// Parts of a row that the last norm takes each by itself.
    pub(crate) norm_groups: usize,
    /// Width of B and C.
    pub(crate) state: usize,
    pub(crate) taps: usize,
    pub(crate) eps: f32,
    pub(crate) proj_bias: bool,
    pub(crate) conv_bias: bool,
    /// What steps are between.
    pub(crate) step_limit: [f32; 2],
}

impl MambaDims {
    fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Inputs, B and C.
    fn channels(&self) -> usize {
        self.inner() + 2 * self.groups * self.state
    }

    /// Width of the first projection: gates, channels of the convolution, steps.
    pub(crate) fn projected(&self) -> usize {
        self.inner() + self.channels() + self.heads
    }

    pub(crate) fn state_shape(&self, state_id: usize) -> StateShape {
        let scan = Some([self.heads, self.head_dim, self.state]);
        StateShape { state_id, channels: self.channels(), taps: self.taps, scan }
    }
}

pub(crate) struct Mamba2 {
    dims: MambaDims,
    in_proj: Linear,
    conv: CausalConv,
    scan: RecurrentScan,
    /// `[heads]` f32: -e^A_log.
    rate: Array,
    /// `[heads]` f32.
    dt_bias: Array,
    /// `[heads, 1]` f32: how much of the input goes past the state (D).
    skip: Array,
    /// `[inner]` f32.
    norm: Array,
    out_proj: Linear,
}

impl Mamba2 {
    pub(crate) fn load(
        dims: MambaDims,
        state_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let MambaDims { hidden, heads, .. } = dims;
        let conv = w.at("conv1d");
        let weight = conv.take_conv(dims.channels(), dims.taps)?;
        let bias = dims.conv_bias.then(|| conv.take("bias", &[dims.channels()])).transpose()?;
        let wide = |w: &Weights, name, len: usize| {
            let array = w.take(name, &[len])?.astype(Dtype::Float32)?;
            array.eval()?;
            Ok::<_, LoadError>(array)
        };
        let a_log = w.take_as_stored("A_log", &[heads])?;
        let rate = a_log.astype(Dtype::Float32)?.exp()?.negative()?;
        rate.eval()?;
        let projected = dims.projected();
        Ok(Self {
            dims,
            in_proj: Linear::load(w.at("in_proj"), hidden, projected, dims.proj_bias)?,
            conv: CausalConv::new(state_id, weight, bias, true),
            scan: RecurrentScan::new(state_id),
            rate,
            dt_bias: wide(w, "dt_bias", heads)?,
            skip: wide(w, "D", heads)?.expand_dims(1)?,
            norm: wide(&w.at("norm"), "weight", dims.inner())?,
            out_proj: Linear::load(w.at("out_proj"), dims.inner(), hidden, dims.proj_bias)?,
        })
    }

    /// `[num_tokens, hidden]` to the same. In f32 from the convolution to the last
    /// projection.
    pub(crate) fn forward(&self, x: &Array, batch: &ForwardBatch) -> Result<Array> {
        let dims = &self.dims;
        let MambaDims { heads, head_dim, groups, state, .. } = *dims;
        let (tokens, inner) = (x.dim(0), dims.inner());
        let parts = self.in_proj.forward(x)?.split_at(&[inner, inner + dims.channels()], -1)?;
        let [gates, mixed, steps] = parts.as_slice() else { unreachable!("cut twice") };
        let mixed = self.conv.forward(mixed, batch)?.astype(Dtype::Float32)?;
        let parts = mixed.split_at(&[inner, inner + groups * state], -1)?;
        let inputs = parts[0].reshape(&[tokens, heads, head_dim])?;
        let keys = |rows: &Array| rows.reshape(&[tokens, groups, state]);
        let steps = self.steps(steps)?;
        let rows = ScanRows {
            q: &keys(&parts[2])?,
            k: &keys(&parts[1])?,
            v: &inputs.multiply(&steps.expand_dims(-1)?)?,
            decay: &self.rate.multiply(&steps)?.exp()?,
            beta: None,
        };
        let out = self.scan.forward(&rows, batch)?.add(&inputs.multiply(&self.skip)?)?;
        let gates = gates.astype(Dtype::Float32)?;
        let gated = gates.multiply(&gates.sigmoid()?)?.multiply(&out.flatten(1, 2)?)?;
        let parts = gated.reshape(&[tokens, dims.norm_groups, inner / dims.norm_groups])?;
        let normed = fast::rms_norm(&parts, None, dims.eps)?;
        let normed = normed.flatten(1, 2)?.multiply(&self.norm)?;
        self.out_proj.forward(&normed.astype(x.dtype())?)
    }

    /// How far each head's state goes at each token, `[num_tokens, heads]` f32.
    fn steps(&self, rows: &Array) -> Result<Array> {
        let steps = softplus(&rows.astype(Dtype::Float32)?.add(&self.dt_bias)?)?;
        match self.dims.step_limit {
            // They are above zero.
            [least, most] if least <= 0.0 && most == f32::INFINITY => Ok(steps),
            [least, most] => steps.maximum(&Array::scalar(least)?)?.minimum(&Array::scalar(most)?),
        }
    }
}
