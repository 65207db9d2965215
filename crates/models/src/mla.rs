//! Multi-head latent attention, which DeepSeek's models and their relatives share: what
//! a token leaves for later ones is a latent, from which all heads' keys and values
//! follow, and one rotated key.
//!
//! Always in the absorbed form: the projection from latents to keys is applied to the
//! queries, that from latents to values to the outputs. So attention has one K/V head,
//! whose key is the latent with the rotated key behind it and whose value is the latent,
//! and a cached token is never expanded again.
//!
//! Upstream: `sglang/srt/models/deepseek_v2.py` (`forward_absorb`).

use attention::{AttentionShape, CacheKind, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{Linear, LoadError, MergedLinear, RmsNorm, Rope, RopePositions, RopeScaling, Weights};
use serde::Deserialize;

use crate::config::check_sizes;

/// Of the norms of latents; config.json's is for the others.
const LATENT_EPS: f32 = 1e-6;

/// The fields of config.json that shape the layer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MlaConfig {
    pub(crate) hidden_size: usize,
    pub(crate) num_attention_heads: usize,
    /// Queries come from a latent of their own.
    q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    qk_nope_head_dim: usize,
    pub(crate) qk_rope_head_dim: usize,
    v_head_dim: usize,
    #[serde(default)]
    attention_bias: bool,
}

pub(crate) struct LatentAttention {
    config: MlaConfig,
    /// To queries or their latent, to the latent of keys and values, to the rotated key.
    q_kv_a_proj: MergedLinear,
    q_b: Option<(RmsNorm, Linear)>,
    kv_a_layernorm: RmsNorm,
    /// Queries to latents, `[num_heads, qk_nope_head_dim, kv_lora_rank]`.
    w_uk: Array,
    /// Latents to values, `[num_heads, kv_lora_rank, v_head_dim]`.
    w_uv: Array,
    o_proj: Linear,
    attn: RadixAttention,
}

impl MlaConfig {
    pub(crate) fn check(&self) -> std::result::Result<(), LoadError> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
        ])?;
        if self.attention_bias && self.q_lora_rank.is_none() {
            let value = "true without q_lora_rank".to_owned();
            return Err(LoadError::Unsupported { what: "attention_bias", value });
        }
        Ok(())
    }

    /// What the layer keeps and how it attends.
    pub(crate) fn attention_shape(&self, layer_id: usize, rope: &RopeScaling) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: 1,
            head_dim: self.kv_lora_rank + self.qk_rope_head_dim,
            scale: (self.q_head_dim() as f32).sqrt().recip() * rope.attention_mscale(),
            sliding_window: None,
            cache: CacheKind::Latent { value_dim: self.kv_lora_rank },
        }
    }

    /// Width of all queries with the projection absorbed: the widest of the layer.
    pub(crate) fn absorbed_width(&self) -> usize {
        self.num_attention_heads * (self.kv_lora_rank + self.qk_rope_head_dim)
    }

    fn q_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }
}

impl LatentAttention {
    /// Takes the layer's tensors. `shape` is the config's.
    pub(crate) fn load(
        config: &MlaConfig,
        shape: AttentionShape,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let MlaConfig { hidden_size, num_attention_heads: heads, kv_lora_rank: rank, .. } = *config;
        let q_width = heads * config.q_head_dim();
        let (first, first_width) = match config.q_lora_rank {
            Some(rank) => ("q_a_proj", rank),
            None => ("q_proj", q_width),
        };
        let latent = (w.at("kv_a_proj_with_mqa"), rank + config.qk_rope_head_dim);
        let parts = [(w.at(first), first_width), latent];
        let bias = config.attention_bias;
        let q_b = |rank| {
            let norm = RmsNorm::load(w.at("q_a_layernorm"), rank, LATENT_EPS)?;
            Ok::<_, LoadError>((norm, Linear::load(w.at("q_b_proj"), rank, q_width, false)?))
        };
        let q_kv_a_proj = MergedLinear::load(&parts, hidden_size, bias)?;
        let q_b = config.q_lora_rank.map(q_b).transpose()?;
        let kv_a_layernorm = RmsNorm::load(w.at("kv_a_layernorm"), rank, LATENT_EPS)?;
        let (w_uk, w_uv) = config.absorbed(w)?;
        let o_proj = Linear::load(w.at("o_proj"), heads * config.v_head_dim, hidden_size, bias)?;
        let attn = RadixAttention::new(shape);
        let config = config.clone();
        Ok(Self { config, q_kv_a_proj, q_b, kv_a_layernorm, w_uk, w_uv, o_proj, attn })
    }

    /// `[num_tokens, hidden]` to the same.
    pub(crate) fn forward(
        &self,
        hidden: &Array,
        (rope, positions): (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let MlaConfig { num_attention_heads: heads, kv_lora_rank: rank, .. } = self.config;
        let (nope, rotated) = (self.config.qk_nope_head_dim, self.config.qk_rope_head_dim);
        let rows = self.q_kv_a_proj.forward(hidden)?;
        let (num_tokens, width) = (rows.dim(0), rows.dim(1));
        let parts = rows.split_at(&[width - rank - rotated, width - rotated], 1)?;
        let [q, latent, k_pe] = parts.as_slice() else { unreachable!("cut twice") };
        let q = match &self.q_b {
            Some((norm, proj)) => proj.forward(&norm.forward(q)?)?,
            None => q.clone(),
        };
        let q = q.reshape(&[num_tokens, heads, nope + rotated])?;
        let parts = q.split_at(&[nope], 2)?;
        let [q_nope, q_pe] = parts.as_slice() else { unreachable!("cut once") };
        let q_pe = q_pe.reshape(&[num_tokens, heads * rotated])?;
        let (q_pe, k_pe) = rope.apply(&q_pe, k_pe, positions)?;
        let latent = self.kv_a_layernorm.forward(latent)?.expand_dims(1)?;
        let q = Array::concatenate(&[&by_head(q_nope, &self.w_uk)?, &q_pe], 2)?;
        let k = Array::concatenate(&[&latent, &k_pe], 2)?;
        let out = self.attn.forward(&q, &k, &latent, batch)?;
        let out = by_head(&out.reshape(&[num_tokens, heads, rank])?, &self.w_uv)?;
        self.o_proj.forward(&out.flatten(1, 2)?)
    }
}

impl MlaConfig {
    /// Both projections from latents, as [`LatentAttention`] has them: from `kv_b_proj`,
    /// `[num_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]`.
    fn absorbed(&self, w: &Weights) -> std::result::Result<(Array, Array), LoadError> {
        let (heads, rank) = (self.num_attention_heads, self.kv_lora_rank);
        let (nope, values) = (self.qk_nope_head_dim, self.v_head_dim);
        let dtype = w.options().compute_dtype;
        let rows = w.at("kv_b_proj").linear_parts(rank, heads * (nope + values))?;
        let rows = rows.dequantize(dtype)?.reshape(&[heads, nope + values, rank])?;
        let parts = rows.split_at(&[nope], 1)?;
        let [w_uk, w_uv] = parts.as_slice() else { unreachable!("cut once") };
        let w_uk = w_uk.contiguous()?;
        let w_uv = w_uv.transpose(&[0, 2, 1])?.contiguous()?;
        mlx::eval(&[&w_uk, &w_uv])?;
        Ok((w_uk, w_uv))
    }
}

/// Each head's rows by its own matrix: `[num_tokens, num_heads, n]` and `[num_heads, n,
/// m]` to `[num_tokens, num_heads, m]`.
fn by_head(x: &Array, w: &Array) -> Result<Array> {
    x.transpose(&[1, 0, 2])?.matmul(w)?.transpose(&[1, 0, 2])
}
