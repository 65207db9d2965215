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
use nn::{
    Linear, LinearWeight, LoadError, MergedLinear, RmsNorm, Rope, RopePositions, RopeScaling,
    Weights,
};
use serde::Deserialize;

use crate::config::check_sizes;

/// The fields of config.json that shape the layer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MlaConfig {
    pub(crate) hidden_size: usize,
    pub(crate) num_attention_heads: usize,
    /// Queries come from a latent of their own.
    pub(crate) q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    qk_nope_head_dim: usize,
    pub(crate) qk_rope_head_dim: usize,
    v_head_dim: usize,
    #[serde(default)]
    attention_bias: bool,
    /// Of the norms of latents.
    #[serde(default = "latent_eps")]
    pub(crate) latent_eps: f32,
    /// In the MLX format the projections from latents are modules of their own, `embed_q`
    /// and `unembed_out`, not `kv_b_proj`.
    #[serde(skip)]
    pub(crate) splits_kv_b: bool,
}

/// DeepSeek's; `rms_norm_eps` is for the other norms.
fn latent_eps() -> f32 {
    1e-6
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
            cache: CacheKind::Latent { value_dim: self.kv_lora_rank },
            ..AttentionShape::default()
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
            let norm = RmsNorm::load(w.at("q_a_layernorm"), rank, config.latent_eps)?;
            Ok::<_, LoadError>((norm, Linear::load(w.at("q_b_proj"), rank, q_width, false)?))
        };
        let q_kv_a_proj = MergedLinear::load(&parts, hidden_size, bias)?;
        let q_b = config.q_lora_rank.map(q_b).transpose()?;
        let kv_a_layernorm = RmsNorm::load(w.at("kv_a_layernorm"), rank, config.latent_eps)?;
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
    /// Both projections from latents, as [`LatentAttention`] has them.
    fn absorbed(&self, w: &Weights) -> std::result::Result<(Array, Array), LoadError> {
        let dtype = w.options().compute_dtype;
        let (w_uk, w_uv) = match (self.splits_kv_b, w.at("embed_q").is_empty()) {
            (false, _) => {
                let (w_uk, w_uv) = self.cut(&self.kv_b(w)?)?;
                (w_uk, w_uv.transpose(&[0, 2, 1])?)
            }
            (true, apart) => {
                let (embed_q, unembed_out) = if apart { self.derived(w)? } else { self.apart(w)? };
                let swapped = |w: &LinearWeight| w.dequantize(dtype)?.transpose(&[0, 2, 1]);
                (swapped(&embed_q)?, swapped(&unembed_out)?)
            }
        };
        let (w_uk, w_uv) = (w_uk.astype(dtype)?.contiguous()?, w_uv.astype(dtype)?.contiguous()?);
        mlx::eval(&[&w_uk, &w_uv])?;
        Ok((w_uk, w_uv))
    }

    /// `kv_b_proj` unpacked, `[num_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]`.
    fn kv_b(&self, w: &Weights) -> std::result::Result<Array, LoadError> {
        let rows = self.num_attention_heads * (self.qk_nope_head_dim + self.v_head_dim);
        let weight = w.at("kv_b_proj").linear_parts(self.kv_lora_rank, rows)?;
        Ok(weight.dequantize(w.options().compute_dtype)?)
    }

    /// Its parts, `[num_heads, qk_nope_head_dim, kv_lora_rank]` and `[num_heads,
    /// v_head_dim, kv_lora_rank]`.
    fn cut(&self, kv_b: &Array) -> Result<(Array, Array)> {
        let (nope, values) = (self.qk_nope_head_dim, self.v_head_dim);
        let shape = [self.num_attention_heads, nope + values, self.kv_lora_rank];
        let parts = kv_b.reshape(&shape)?.split_at(&[nope], 1)?;
        Ok((parts[0].clone(), parts[1].clone()))
    }

    /// `embed_q`, `[num_heads, kv_lora_rank, qk_nope_head_dim]`, and `unembed_out`,
    /// `[num_heads, v_head_dim, kv_lora_rank]`.
    fn apart(&self, w: &Weights) -> std::result::Result<(LinearWeight, LinearWeight), LoadError> {
        let (heads, rank) = (self.num_attention_heads, self.kv_lora_rank);
        let embed_q = w.at("embed_q").stacked_linear_parts(heads, self.qk_nope_head_dim, rank)?;
        let unembed_out = w.at("unembed_out").stacked_linear_parts(heads, rank, self.v_head_dim)?;
        Ok((embed_q, unembed_out))
    }

    /// The same from `kv_b_proj`, as checkpoints are published.
    fn derived(&self, w: &Weights) -> std::result::Result<(LinearWeight, LinearWeight), LoadError> {
        let kv_b = w.at("kv_b_proj").silent();
        let kv_b = match kv_b.has("scales") {
            true => self.kv_b(&w.silent())?,
            false => {
                let rows = self.num_attention_heads * (self.qk_nope_head_dim + self.v_head_dim);
                kv_b.take("weight", &[rows, self.kv_lora_rank])?
            }
        };
        let (w_uk, w_uv) = self.cut(&kv_b)?;
        let w_uk = w_uk.transpose(&[0, 2, 1])?.contiguous()?;
        let embed_q = w.at("embed_q").derived(&w_uk)?;
        Ok((embed_q, w.at("unembed_out").derived(&w_uv.contiguous()?)?))
    }
}

/// Each head's rows by its own matrix: `[num_tokens, num_heads, n]` and `[num_heads, n,
/// m]` to `[num_tokens, num_heads, m]`.
fn by_head(x: &Array, w: &Array) -> Result<Array> {
    x.transpose(&[1, 0, 2])?.matmul(w)?.transpose(&[1, 0, 2])
}
