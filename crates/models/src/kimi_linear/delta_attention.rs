//! Kimi Delta Attention: Gated DeltaNet with a decay for each column of the state.
//!
//! Upstream: `KimiDeltaAttention` in `sglang/srt/models/kimi_linear.py`; Kimi Linear: An
//! Expressive, Efficient Attention Architecture (2025).

use attention::{CausalConv, ForwardBatch, RecurrentScan, ScanRows, StateShape};
use mlx::{Array, Dtype, Result};
use nn::{Linear, LoadError, MergedLinear, RmsNorm, Weights, softplus};

use crate::gated_delta_net::unit_keys;

/// Sizes of a layer. Keys and values have as many heads, as wide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KdaDims {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) taps: usize,
    pub(crate) eps: f32,
}

impl KdaDims {
    fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Of queries, keys and values.
    pub(crate) fn channels(&self) -> usize {
        3 * self.inner()
    }

    pub(crate) fn state_shape(&self, state_id: usize) -> StateShape {
        let scan = Some([self.heads, self.head_dim, self.head_dim]);
        StateShape { state_id, channels: self.channels(), taps: self.taps, scan }
    }
}

pub(super) struct DeltaAttention {
    dims: KdaDims,
    qkv_proj: MergedLinear,
    conv: CausalConv,
    scan: RecurrentScan,
    /// To what decays and gates are projected from, and to beta.
    fgb_proj: MergedLinear,
    f_b_proj: Linear,
    g_b_proj: Linear,
    /// `[heads, 1]` f32: -e^A_log.
    rate: Array,
    /// `[heads, head_dim]` f32.
    dt_bias: Array,
    o_norm: RmsNorm,
    o_proj: Linear,
}

impl DeltaAttention {
    pub(super) fn load(
        dims: KdaDims,
        state_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let KdaDims { hidden, heads, head_dim, taps, eps } = dims;
        let inner = dims.inner();
        let published = |part: &str| w.at(&format!("{part}_conv1d"));
        let is_published = ["q", "k", "v"].iter().any(|part| !published(part).is_empty());
        let conv = |part: &str| {
            let at = w.at(&format!("{part}_conv.conv"));
            let at = if is_published { published(part).told_as(&at) } else { at };
            at.take_conv(inner, taps)
        };
        let conv = Array::concatenate(&[&conv("q")?, &conv("k")?, &conv("v")?], 0)?;
        let a_log = w.take_as_stored("A_log", &[1, 1, heads, 1])?;
        let rate = a_log.astype(Dtype::Float32)?.exp()?.negative()?.reshape(&[heads, 1])?;
        let dt_bias = w.take_as_stored("dt_bias", &[inner])?.astype(Dtype::Float32)?;
        mlx::eval(&[&conv, &rate, &dt_bias])?;
        let qkv = [(w.at("q_proj"), inner), (w.at("k_proj"), inner), (w.at("v_proj"), inner)];
        let fgb =
            [(w.at("f_a_proj"), head_dim), (w.at("g_a_proj"), head_dim), (w.at("b_proj"), heads)];
        Ok(Self {
            dims,
            qkv_proj: MergedLinear::load(&qkv, hidden, false)?,
            conv: CausalConv::new(state_id, conv, None, true),
            scan: RecurrentScan::new(state_id),
            fgb_proj: MergedLinear::load(&fgb, hidden, false)?,
            f_b_proj: Linear::load(w.at("f_b_proj"), head_dim, inner, false)?,
            g_b_proj: Linear::load(w.at("g_b_proj"), head_dim, inner, false)?,
            rate,
            dt_bias: dt_bias.reshape(&[heads, head_dim])?,
            o_norm: RmsNorm::load(w.at("o_norm"), head_dim, eps)?,
            o_proj: Linear::load(w.at("o_proj"), inner, hidden, false)?,
        })
    }

    /// `[num_tokens, hidden]` to the same.
    pub(super) fn forward(&self, x: &Array, batch: &ForwardBatch) -> Result<Array> {
        let KdaDims { heads, head_dim, .. } = self.dims;
        let tokens = x.dim(0);
        let by_head = |rows: &Array| rows.reshape(&[tokens, heads, head_dim]);
        let mixed = self.conv.forward(&self.qkv_proj.forward(x)?, batch)?.split(3, -1)?;
        let [q, k] = unit_keys(&by_head(&mixed[0])?, &by_head(&mixed[1])?)?;
        let parts = self.fgb_proj.forward(x)?.split_at(&[head_dim, 2 * head_dim], -1)?;
        let [f, g, b] = parts.as_slice() else { unreachable!("cut twice") };
        let f = by_head(&self.f_b_proj.forward(f)?)?.astype(Dtype::Float32)?;
        let step = softplus(&f.add(&self.dt_bias)?)?;
        let rows = ScanRows {
            q: &q,
            k: &k,
            v: &by_head(&mixed[2])?,
            decay: &self.rate.multiply(&step)?.exp()?,
            beta: Some(&b.astype(Dtype::Float32)?.sigmoid()?),
        };
        let out = self.scan.forward(&rows, batch)?.reshape(&[tokens * heads, head_dim])?;
        let normed = self.o_norm.forward(&out)?.astype(Dtype::Float32)?;
        let gates = self.g_b_proj.forward(g)?.astype(Dtype::Float32)?.sigmoid()?;
        let gated = normed.reshape(&[tokens, heads * head_dim])?.multiply(&gates)?;
        self.o_proj.forward(&gated.astype(x.dtype())?)
    }
}
