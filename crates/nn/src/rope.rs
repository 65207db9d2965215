//! Rotary position embedding over flat tokens.
//!
//! Every token has its own position, so for MLX's fused kernel tokens are the
//! batch and time has length one. On the CPU that kernel is a chain of small
//! operations that computes sines anew for q and k of every layer; there the
//! sines are worked out once a step ([`Rope::at`]) and all layers share them.
//!
//! Upstream: `sglang/srt/layers/rotary_embedding.py`.

use kernels::cpu::HeadNorms;
use mlx::{
    Array, Dtype, Result,
    fast::{self, RopeOffset},
};

use crate::{LoadError, RmsNorm, device::on_cpu};

mod frequencies;
mod scaling;
#[cfg(test)]
mod tests;

use frequencies::Frequencies;

pub use scaling::{RopeConfig, RopeScaling};

/// With fewer elements that rotate, MLX's fused kernel asks CUDA for blocks of more than 64
/// threads along the tokens, and a prompt longer than that fails. No published model has
/// fewer; tests do.
const MIN_FUSED_DIMS: usize = 32;

/// The rotary embedding of a model.
pub struct Rope {
    head_dim: usize,
    /// The first elements of a head, which rotate.
    dims: usize,
    frequencies: Frequencies,
    /// Yarn's factor on q and k.
    mscale: f32,
    traditional: bool,
    fused: bool,
    /// `[dims / 2]` f32: radians a position, unless they differ by position.
    inv_freq: Option<Array>,
}

/// A rotary embedding for kernels that rotate by themselves.
#[derive(Clone, Copy)]
pub struct RopeTable<'a> {
    /// `[dims / 2]` f32: radians a position.
    pub inv_freq: &'a Array,
    /// Factor on what rotates (YaRN's).
    pub mscale: f32,
    /// Pairs are neighbours, not halves.
    pub traditional: bool,
}

/// The positions of a step, prepared for all layers.
pub struct RopePositions(Prepared);

enum Prepared {
    /// `[num_tokens]` int32, for the fused kernel.
    Positions(Array),
    /// f32, `[num_tokens, 1, dims]`: cosines twice, then sines with the first
    /// half negated.
    Tables { cos: Array, sin: Array },
    /// f32, `[num_tokens, 1, dims / 2]`, for neighbouring pairs.
    Pairs { cos: Array, sin: Array },
}

impl Rope {
    /// For heads of `head_dim` elements, all of which rotate unless the config says
    /// otherwise.
    ///
    /// # Errors
    /// Those of MLX, and an odd number of elements that rotate.
    pub fn new(head_dim: usize, config: &RopeConfig) -> std::result::Result<Self, LoadError> {
        let dims = config.rotary_dims(head_dim)?;
        let frequencies = Frequencies::new(dims, config)?;
        let mscale = config.scaling.mscale();
        Ok(Self { mscale, ..Self::of(head_dim, dims, frequencies, config.traditional)? })
    }

    /// For layers without positions: leaves every head as it is, by the path of
    /// those that rotate.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn still(head_dim: usize) -> Result<Self> {
        Self::of(head_dim, head_dim, Frequencies::still(head_dim)?, false)
    }

    fn of(
        head_dim: usize,
        dims: usize,
        frequencies: Frequencies,
        traditional: bool,
    ) -> Result<Self> {
        let inv_freq = match frequencies.differ_by_position() {
            true => None,
            false => {
                let one = Array::from_slice(&[1_i32], &[1])?;
                let table = frequencies.angles(&one)?.reshape(&[dims / 2])?;
                table.eval()?;
                Some(table)
            }
        };
        let fused = !on_cpu()? && !frequencies.differ_by_position() && dims >= MIN_FUSED_DIMS;
        Ok(Self { head_dim, dims, frequencies, mscale: 1.0, traditional, fused, inv_freq })
    }

    /// For kernels that rotate by themselves; `None` if the frequencies differ by
    /// position.
    pub fn table(&self) -> Option<RopeTable<'_>> {
        let (mscale, traditional) = (self.mscale, self.traditional);
        self.inv_freq.as_ref().map(|inv_freq| RopeTable { inv_freq, mscale, traditional })
    }

    /// Prepares the positions of a step, `[num_tokens]` int32.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn at(&self, positions: &Array) -> Result<RopePositions> {
        if self.fused {
            return Ok(RopePositions(Prepared::Positions(positions.clone())));
        }
        let angles = self.frequencies.angles(positions)?.expand_dims(1)?;
        let (mut cos, mut sin) = (angles.cos()?, angles.sin()?);
        if self.mscale != 1.0 {
            (cos, sin) = (cos.mul_scalar(self.mscale)?, sin.mul_scalar(self.mscale)?);
        }
        if self.traditional {
            return Ok(RopePositions(Prepared::Pairs { cos, sin }));
        }
        let cos = Array::concatenate(&[&cos, &cos], -1)?;
        let sin = Array::concatenate(&[&sin.negative()?, &sin], -1)?;
        Ok(RopePositions(Prepared::Tables { cos, sin }))
    }

    /// Rotates `q` `[num_tokens, num_heads * head_dim]` and `k` likewise. Returns
    /// them as `[num_tokens, num_heads, head_dim]`, in their element type.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn apply(&self, q: &Array, k: &Array, at: &RopePositions) -> Result<(Array, Array)> {
        Ok((self.rotate(q, at)?, self.rotate(k, at)?))
    }

    /// Takes the outputs of a merged projection apart and rotates: `qkv`
    /// `[num_tokens, (num_heads + 2 * num_kv_heads) * head_dim]` to q
    /// `[num_tokens, num_heads, head_dim]`, k and v `[num_tokens, num_kv_heads, head_dim]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn split(
        &self,
        qkv: &Array,
        num_heads: usize,
        num_kv_heads: usize,
        at: &RopePositions,
    ) -> Result<[Array; 3]> {
        if let Prepared::Tables { cos, sin } = &at.0
            && on_cpu()?
        {
            let shape = [num_heads, num_kv_heads, self.head_dim];
            return kernels::cpu::rope_split(qkv, shape, None, (cos, sin));
        }
        let (rows, dims) = (qkv.dim(0), self.head_dim);
        let heads = |first: usize, count: usize| {
            let (start, stop) = ((first * dims) as i32, ((first + count) * dims) as i32);
            qkv.slice(&[0, start], &[rows as i32, stop], &[1, 1])
        };
        let q = heads(0, num_heads)?;
        let k = heads(num_heads, num_kv_heads)?;
        let v = heads(num_heads + num_kv_heads, num_kv_heads)?;
        let (q, k) = self.apply(&q, &k, at)?;
        Ok([q, k, v.reshape(&[rows, num_kv_heads, dims])?])
    }

    /// [`Rope::split`] with norms of the heads of q and k, of one epsilon, before they
    /// rotate; `None` if no kernel does all that here.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn split_normed(
        &self,
        qkv: &Array,
        num_heads: usize,
        num_kv_heads: usize,
        (q_norm, k_norm): (&RmsNorm, &RmsNorm),
        at: &RopePositions,
    ) -> Result<Option<[Array; 3]>> {
        let Prepared::Tables { cos, sin } = &at.0 else { return Ok(None) };
        if !on_cpu()? {
            return Ok(None);
        }
        let shape = [num_heads, num_kv_heads, self.head_dim];
        let norms = HeadNorms { q: q_norm.weight(), k: k_norm.weight(), eps: q_norm.eps() };
        kernels::cpu::rope_split(qkv, shape, Some(norms), (cos, sin)).map(Some)
    }

    /// One of the two: rotates `x` `[num_tokens, heads * head_dim]`, for layers that have
    /// no keys of their own, to `[num_tokens, heads, head_dim]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn rotate(&self, x: &Array, at: &RopePositions) -> Result<Array> {
        let (num_tokens, width) = (x.dim(0), self.head_dim);
        let x = x.reshape(&[num_tokens, x.size() / num_tokens.max(1) / width, width])?;
        if self.dims == width {
            return self.rotate_whole(&x, at);
        }
        let turned = self.rotate_whole(&last(&x, 0, self.dims)?, at)?;
        Array::concatenate(&[&turned, &last(&x, self.dims, width)?], -1)
    }

    /// `[num_tokens, heads, dims]`.
    fn rotate_whole(&self, x: &Array, at: &RopePositions) -> Result<Array> {
        match &at.0 {
            Prepared::Positions(positions) => self.rotate_fused(x, positions),
            Prepared::Tables { cos, sin } => {
                let (half, dims) = (self.dims / 2, self.dims);
                let swapped = Array::concatenate(&[&last(x, half, dims)?, &last(x, 0, half)?], -1)?;
                x.multiply(cos)?.add(&swapped.multiply(sin)?)?.astype(x.dtype())
            }
            Prepared::Pairs { cos, sin } => rotate_pairs(x, cos, sin),
        }
    }

    fn rotate_fused(&self, x: &Array, positions: &Array) -> Result<Array> {
        let x = if self.mscale == 1.0 { x.clone() } else { x.mul_scalar(self.mscale)? };
        let (base, scale, freqs) = self.frequencies.fused();
        fast::rope(
            &x.expand_dims(2)?,
            self.dims,
            self.traditional,
            base,
            scale,
            RopeOffset::PerBatch(positions),
            freqs,
        )?
        .squeeze(2)
    }
}

/// Rotates elements 2i and 2i + 1.
fn rotate_pairs(x: &Array, cos: &Array, sin: &Array) -> Result<Array> {
    let (num_tokens, heads, dims) = (x.dim(0), x.dim(1), x.dim(2));
    let pairs = x.reshape(&[num_tokens, heads, dims / 2, 2])?;
    let (a, b) = (last(&pairs, 0, 1)?.squeeze(-1)?, last(&pairs, 1, 2)?.squeeze(-1)?);
    let first = a.multiply(cos)?.subtract(&b.multiply(sin)?)?;
    let second = a.multiply(sin)?.add(&b.multiply(cos)?)?;
    Array::stack(&[&first, &second], -1)?.reshape(&[num_tokens, heads, dims])?.astype(x.dtype())
}

/// Elements `start..stop` of the last dimension.
fn last(x: &Array, start: usize, stop: usize) -> Result<Array> {
    let mut starts = vec![0; x.ndim()];
    let mut stops: Vec<i32> = x.shape().iter().map(|&dim| dim as i32).collect();
    let axis = x.ndim() - 1;
    (starts[axis], stops[axis]) = (start as i32, stop as i32);
    x.slice(&starts, &stops, &vec![1; x.ndim()])
}

/// Positions as f32, `[num_tokens, 1]`.
fn column(positions: &Array) -> Result<Array> {
    positions.astype(Dtype::Float32)?.expand_dims(1)
}
