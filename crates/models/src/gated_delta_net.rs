//! Gated DeltaNet: linear attention whose state forgets, and replaces what it knows of a
//! key. The recurrent half of Qwen3-Next and Qwen3.5.
//!
//! Upstream: `sglang/srt/models/qwen3_next.py` (`Qwen3GatedDeltaNet`); Yang, Kautz,
//! Hatamizadeh: Gated Delta Networks (2024).

use attention::{CausalConv, ForwardBatch, RecurrentScan, ScanRows, StateShape};
use mlx::{Array, Dtype, Result, fast};
use nn::{Linear, LoadError, RmsNorm, Weights, softplus};

/// Added to a sum of squares before q and k are divided by its root.
const L2_EPS: f32 = 1e-6;

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeltaDims {
    pub(crate) hidden: usize,
    pub(crate) key_heads: usize,
    pub(crate) value_heads: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) taps: usize,
    pub(crate) eps: f32,
}

impl DeltaDims {
    fn keys(&self) -> usize {
        self.key_heads * self.key_dim
    }

    fn values(&self) -> usize {
        self.value_heads * self.value_dim
    }

    fn channels(&self) -> usize {
        2 * self.keys() + self.values()
    }

    pub(crate) fn state_shape(&self, state_id: usize) -> StateShape {
        let scan = Some([self.value_heads, self.value_dim, self.key_dim]);
        StateShape { state_id, channels: self.channels(), taps: self.taps, scan }
    }
}

pub(crate) struct GatedDeltaNet {
    dims: DeltaDims,
    projections: Projections,
    conv: CausalConv,
    scan: RecurrentScan,
    /// `[value_heads]` f32: -e^A_log.
    rate: Array,
    /// `[value_heads]` f32.
    dt_bias: Array,
    norm: RmsNorm,
    out_proj: Linear,
}

/// How the inputs of a layer come out of the checkpoint's matrices.
enum Projections {
    /// A key head's q, k, v and gates side by side (Qwen3-Next).
    ByHead { qkvz: Linear, ba: Linear },
    /// Whole (Qwen3.5).
    Apart { qkv: Linear, z: Linear, b: Linear, a: Linear },
}

/// Which of the two a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    ByHead,
    Apart,
}

/// `[num_tokens, ..]` each.
struct Projected {
    /// `[.., channels]`: q, k, v.
    mixed: Array,
    /// Gates of the output, `[.., value_heads, value_dim]`.
    z: Array,
    /// `[.., value_heads]`.
    b: Array,
    /// As `b`.
    a: Array,
}

impl Projections {
    fn forward(&self, x: &Array, dims: &DeltaDims) -> Result<Projected> {
        let (tokens, heads) = (x.dim(0), dims.value_heads);
        let gates = [tokens, heads, dims.value_dim];
        match self {
            Self::Apart { qkv, z, b, a } => Ok(Projected {
                mixed: qkv.forward(x)?,
                z: z.forward(x)?.reshape(&gates)?,
                b: b.forward(x)?,
                a: a.forward(x)?,
            }),
            Self::ByHead { qkvz, ba } => {
                let (keys, per_key) = (dims.key_heads, heads / dims.key_heads);
                let by_head = |rows: Array| rows.reshape(&[tokens, keys, rows.dim(1) / keys]);
                let (width, values) = (dims.key_dim, per_key * dims.value_dim);
                let parts = by_head(qkvz.forward(x)?)?
                    .split_at(&[width, 2 * width, 2 * width + values], -1)?;
                let rows = |part: &Array| part.reshape(&[tokens, part.dim(1) * part.dim(2)]);
                let [q, k, v] = [rows(&parts[0])?, rows(&parts[1])?, rows(&parts[2])?];
                let halves = by_head(ba.forward(x)?)?.split(2, -1)?;
                Ok(Projected {
                    mixed: Array::concatenate(&[&q, &k, &v], -1)?,
                    z: parts[3].reshape(&gates)?,
                    b: rows(&halves[0])?,
                    a: rows(&halves[1])?,
                })
            }
        }
    }
}

/// `q` and `k`, `[num_tokens, heads, key_dim]`, to length one, and `q` by the usual factor
/// of scores.
pub(crate) fn unit_keys(q: &Array, k: &Array) -> Result<[Array; 2]> {
    let scale = (q.dim(2) as f32).sqrt().recip();
    let unit = |rows: &Array, factor: f32| {
        fast::rms_norm(rows, None, L2_EPS * scale * scale)?.mul_scalar(factor)
    };
    Ok([unit(q, scale * scale)?, unit(k, scale)?])
}

impl GatedDeltaNet {
    pub(crate) fn load(
        dims: DeltaDims,
        state_id: usize,
        layout: Layout,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, heads) = (dims.hidden, dims.value_heads);
        let linear = |name: &str, out| Linear::load(w.at(name), hidden, out, false);
        let projections = match layout {
            Layout::ByHead => Projections::ByHead {
                qkvz: linear("in_proj_qkvz", 2 * dims.keys() + 2 * dims.values())?,
                ba: linear("in_proj_ba", 2 * heads)?,
            },
            Layout::Apart => Projections::Apart {
                qkv: linear("in_proj_qkv", dims.channels())?,
                z: linear("in_proj_z", dims.values())?,
                b: linear("in_proj_b", heads)?,
                a: linear("in_proj_a", heads)?,
            },
        };
        let conv = w.at("conv1d").take_conv(dims.channels(), dims.taps)?;
        let a_log = match layout {
            Layout::ByHead => w.take("A_log", &[heads])?,
            Layout::Apart => w.take_as_stored("A_log", &[heads])?,
        };
        let rate = a_log.astype(Dtype::Float32)?.exp()?.negative()?;
        rate.eval()?;
        Ok(Self {
            dims,
            projections,
            conv: CausalConv::new(state_id, conv, None, true),
            scan: RecurrentScan::new(state_id),
            rate,
            dt_bias: w.take("dt_bias", &[heads])?.astype(Dtype::Float32)?,
            norm: RmsNorm::load(w.at("norm"), dims.value_dim, dims.eps)?,
            out_proj: Linear::load(w.at("out_proj"), dims.values(), hidden, false)?,
        })
    }

    /// `[num_tokens, hidden]` to the same.
    pub(crate) fn forward(&self, x: &Array, batch: &ForwardBatch) -> Result<Array> {
        let dims = &self.dims;
        let (tokens, dtype) = (x.dim(0), x.dtype());
        let Projected { mixed, z, b, a } = self.projections.forward(x, dims)?;
        let mixed = self.conv.forward(&mixed, batch)?;
        let parts = mixed.split_at(&[dims.keys(), 2 * dims.keys()], -1)?;
        let keys = [tokens, dims.key_heads, dims.key_dim];
        let [q, k] = unit_keys(&parts[0].reshape(&keys)?, &parts[1].reshape(&keys)?)?;
        let v = parts[2].reshape(&[tokens, dims.value_heads, dims.value_dim])?;
        let step = softplus(&a.astype(Dtype::Float32)?.add(&self.dt_bias)?)?;
        let decay = self.rate.multiply(&step)?.exp()?;
        let beta = b.astype(Dtype::Float32)?.sigmoid()?;
        let rows = ScanRows { q: &q, k: &k, v: &v, decay: &decay, beta: Some(&beta) };
        let out = self.scan.forward(&rows, batch)?;
        let flat = [tokens * dims.value_heads, dims.value_dim];
        let normed = self.norm.forward(&out.reshape(&flat)?)?.astype(Dtype::Float32)?;
        let z = z.reshape(&flat)?.astype(Dtype::Float32)?;
        let gated = z.multiply(&z.sigmoid()?)?.multiply(&normed)?.astype(dtype)?;
        self.out_proj.forward(&gated.reshape(&[tokens, dims.values()])?)
    }
}
