//! Gemma, the first: Llama's layers with wide heads, norms that are stored as what is added
//! to one, and embeddings as long as the square root of their width.
//!
//! Upstream: `sglang/srt/models/gemma.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, LeftOver, Linear, LmHead, LoadError, MergedLinear,
    RmsNorm, Rope, RopeConfig, RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{check_heads, check_sizes, left_over, pack_all},
    residual::forward_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["GemmaForCausalLM"],
    model_types: &["gemma"],
    models: "Gemma 2B and 7B, 1.1, CodeGemma",
    // The head is the embedding, whatever config.json says.
    left_over: |hf| left_over(hf).into_iter().chain([LeftOver::Module("lm_head")]).collect(),
    quant: pack_all,
    load: |hf, w| Ok(Box::new(GemmaForCausalLm::load(hf, &w.at("model"))?)),
};

/// Every field of config.json that changes the graph. `hidden_act` does not: the first
/// configs have one there that the models were not trained with.
#[derive(Debug, Clone, Deserialize)]
struct GemmaConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    hidden_activation: Option<Activation>,
    rms_norm_eps: f32,
    #[serde(default)]
    attention_bias: bool,
}

struct GemmaForCausalLm {
    config: GemmaConfig,
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
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl CausalLm for GemmaForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let scale = (self.config.hidden_size as f32).sqrt();
        let hidden = self.embed_tokens.forward(&batch.input_ids)?.mul_scalar(scale)?;
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
    /// The residual stream, and what is to be added to it: the next norm does
    /// both at once.
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
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.mlp.forward(&normed)?))
    }
}

impl GemmaForCausalLm {
    fn load(hf: &HfConfig, model: &Weights) -> std::result::Result<Self, LoadError> {
        let config = GemmaConfig::new(hf)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim, &RopeConfig::from_config(hf)?)?;
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
        let layers =
            (0..config.num_hidden_layers).map(layer).collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, true)?;
        Ok(Self {
            context_length: hf.context_length(),
            rope,
            layers,
            norm: RmsNorm::load_above_one(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head: embed_tokens.as_head()?,
            embed_tokens,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(
        config: &GemmaConfig,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, at) = (config.hidden_size, w.at("self_attn"));
        let norm = |name| RmsNorm::load_above_one(w.at(name), hidden, config.rms_norm_eps);
        let shape = config.attention_shape(layer_id);
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let parts = [(at.at("q_proj"), q), (at.at("k_proj"), kv), (at.at("v_proj"), kv)];
        let (sizes, act) = ([hidden, config.intermediate_size], config.hidden_activation);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&parts, hidden, false)?,
            o_proj: Linear::load(at.at("o_proj"), q, hidden, false)?,
            attn: RadixAttention::new(shape),
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load(&w.at("mlp"), sizes, act.unwrap_or(Activation::GeluNew), false)?,
        })
    }
}

impl GemmaConfig {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let config: Self = hf.parse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
        ])?;
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        check_heads(config.hidden_size, heads, Some(config.head_dim))?;
        if config.attention_bias {
            let value = "true".to_owned();
            return Err(LoadError::Unsupported { what: "attention_bias", value });
        }
        Ok(config)
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).sqrt().recip(),
            ..AttentionShape::default()
        }
    }
}
