//! GLM-4 of 0414: norms before and after each half of a layer, heads that rotate in part.
//!
//! Upstream: `sglang/srt/models/glm4.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm,
    Rope, RopeConfig, RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{FUSED_NAMES, check_heads, check_sizes, default_act, is_tied, left_over, pack_all},
    residual::forward_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Glm4ForCausalLM"],
    model_types: &["glm4"],
    models: "GLM-4-9B-0414, GLM-4-32B-0414",
    left_over,
    quant: pack_all,
    load: |config, weights| Ok(Box::new(Glm4ForCausalLm::load(config, weights)?)),
};

#[derive(Deserialize)]
struct Glm4Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
    rms_norm_eps: f32,
    /// Of q, k and v.
    attention_bias: bool,
    head_dim: Option<usize>,
}

struct Glm4ForCausalLm {
    config: Glm4Config,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
    post_self_attn_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_mlp_layernorm: RmsNorm,
}

impl CausalLm for Glm4ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        let normed =
            forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
                layer.forward(hidden, delta, rope, batch)
            })?;
        self.lm_head.forward(&normed)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        (0..self.config.num_hidden_layers).map(|layer| self.config.attention_shape(layer)).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn intermediate_size(&self) -> usize {
        self.config.intermediate_size
    }

    fn context_length(&self) -> usize {
        self.context_length
    }
}

impl DecoderLayer {
    /// The residual stream, and what is to be added to it.
    fn forward(
        &self,
        hidden: &Array,
        delta: Option<&Array>,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<(Array, Array)> {
        let (hidden, normed) = self.input_layernorm.forward_residual(hidden, delta)?;
        let qkv = self.qkv_proj.forward(&normed)?;
        let attn = self.o_proj.forward(&self.attn.forward_rope(&qkv, rope, batch)?)?;
        let attn = self.post_self_attn_layernorm.forward(&attn)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        let mlp = self.mlp.forward(&normed)?;
        Ok((hidden, self.post_mlp_layernorm.forward(&mlp)?))
    }
}

impl Glm4ForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = Glm4Config::new(hf)?;
        let (vocab, hidden, tied) = (config.vocab_size, config.hidden_size, is_tied(hf)?);
        // Pairs are neighbours even where config.json does not say so.
        let traditional = hf.get("rope_traditional") != Some(&false.into());
        let rope = RopeConfig { traditional, ..RopeConfig::partial_from_config(hf)? };
        let rope = Rope::new(config.head_dim(), &rope)?;
        let model = w.at("model");
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(w.at("lm_head"), hidden, vocab)?,
        };
        Ok(Self {
            context_length: hf.context_length(),
            embed_tokens,
            rope,
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(config: &Glm4Config, layer_id: usize, w: &Weights) -> Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let norm = |name| RmsNorm::load(w.at(name), hidden, config.rms_norm_eps);
        let shape = config.attention_shape(layer_id);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let at = w.at("self_attn");
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        let mlp = [hidden, config.intermediate_size];
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&qkv, hidden, bias)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, false)?,
            attn: RadixAttention::new(shape),
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load_fused(&w.at("mlp"), FUSED_NAMES, mlp, config.hidden_act)?,
            post_self_attn_layernorm: norm("post_self_attn_layernorm")?,
            post_mlp_layernorm: norm("post_mlp_layernorm")?,
        })
    }
}

impl Glm4Config {
    fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let config: Self = hf.parse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
        ])?;
        check_heads(
            config.hidden_size,
            [config.num_attention_heads, config.num_key_value_heads],
            config.head_dim,
        )?;
        Ok(config)
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            ..AttentionShape::default()
        }
    }
}
