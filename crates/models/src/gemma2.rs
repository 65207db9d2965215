//! Gemma 2: norms around both halves of a layer, caps on scores and logits, a window in
//! every other layer (which mlx-lm leaves out).
//!
//! Upstream: `sglang/srt/models/gemma2.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, LeftOver, Linear, LmHead, LoadError, MergedLinear,
    RmsNorm, Rope, RopeConfig, RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{
        LayerType, check_heads, check_sizes, config_error, left_over, pack_all, sliding_layers,
    },
    gemma3_text::add_clipped,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Gemma2ForCausalLM"],
    model_types: &["gemma2"],
    models: "Gemma 2",
    // The head is the embedding, whatever config.json says.
    left_over: |hf| left_over(hf).into_iter().chain([LeftOver::Module("lm_head")]).collect(),
    quant: pack_all,
    load: |hf, w| Ok(Box::new(Gemma2ForCausalLm::load(hf, &w.at("model"))?)),
};

/// Every field of config.json that changes the graph.
#[derive(Debug, Clone, Deserialize)]
struct Gemma2Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    #[serde(default = "gelu")]
    hidden_activation: Activation,
    rms_norm_eps: f32,
    #[serde(default = "scalar")]
    query_pre_attn_scalar: f32,
    #[serde(default = "score_cap")]
    attn_logit_softcapping: f32,
    #[serde(default = "logit_cap")]
    final_logit_softcapping: f32,
    #[serde(default = "window")]
    sliding_window: usize,
    layer_types: Option<Vec<LayerType>>,
}

struct Gemma2ForCausalLm {
    config: Gemma2Config,
    slides: Vec<bool>,
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
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

impl CausalLm for Gemma2ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let scale = (self.config.hidden_size as f32).sqrt();
        let mut hidden = self.embed_tokens.forward(&batch.input_ids)?.mul_scalar(scale)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, rope, batch)?;
        }
        let hidden = self.norm.forward(&batch.select_sampled(&hidden)?)?;
        let cap = self.config.final_logit_softcapping;
        self.lm_head.forward(&hidden)?.mul_scalar(cap.recip())?.tanh()?.mul_scalar(cap)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        let layers = self.slides.iter().enumerate();
        layers.map(|(layer, &slides)| self.config.attention_shape(layer, slides)).collect()
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
    fn forward(
        &self,
        hidden: &Array,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let qkv = self.qkv_proj.forward(&self.input_layernorm.forward(hidden)?)?;
        let attn = self.o_proj.forward(&self.attn.forward_rope(&qkv, rope, batch)?)?;
        let hidden = add_clipped(hidden, &self.post_attention_layernorm.forward(&attn)?)?;
        let mlp = self.mlp.forward(&self.pre_feedforward_layernorm.forward(&hidden)?)?;
        add_clipped(&hidden, &self.post_feedforward_layernorm.forward(&mlp)?)
    }
}

impl Gemma2ForCausalLm {
    fn load(hf: &HfConfig, model: &Weights) -> std::result::Result<Self, LoadError> {
        let config = Gemma2Config::new(hf)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim, &RopeConfig::from_config(hf)?)?;
        let slides = sliding_layers(config.layer_types.as_deref(), 2, config.num_hidden_layers)?;
        let layer = |(id, &slides): (usize, &bool)| {
            DecoderLayer::load(&config, (id, slides), &model.at("layers").layer(id))
        };
        let layers = slides.iter().enumerate().map(layer).collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, true)?;
        Ok(Self {
            context_length: hf.context_length(),
            slides,
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
        config: &Gemma2Config,
        (layer_id, slides): (usize, bool),
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, head_dim) = (config.hidden_size, config.head_dim);
        let row_norm =
            |name: &str| RmsNorm::load_above_one(w.at(name), hidden, config.rms_norm_eps);
        let at = w.at("self_attn");
        let shape = config.attention_shape(layer_id, slides);
        let (q_dim, kv_dim) = (shape.num_heads * head_dim, shape.num_kv_heads * head_dim);
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        let sizes = [hidden, config.intermediate_size];
        Ok(Self {
            input_layernorm: row_norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&qkv, hidden, false)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, false)?,
            attn: RadixAttention::new(shape),
            post_attention_layernorm: row_norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: row_norm("pre_feedforward_layernorm")?,
            mlp: GatedMlp::load(&w.at("mlp"), sizes, config.hidden_activation, false)?,
            post_feedforward_layernorm: row_norm("post_feedforward_layernorm")?,
        })
    }
}

impl Gemma2Config {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let config: Self = hf.parse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
            ("sliding_window", config.sliding_window),
        ])?;
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        check_heads(config.hidden_size, heads, Some(config.head_dim))?;
        for (field, cap) in [
            ("attn_logit_softcapping", config.attn_logit_softcapping),
            ("final_logit_softcapping", config.final_logit_softcapping),
            ("query_pre_attn_scalar", config.query_pre_attn_scalar),
        ] {
            if !(cap.is_finite() && cap > 0.0) {
                return Err(config_error(field, "must be positive".to_owned()));
            }
        }
        Ok(config)
    }

    fn attention_shape(&self, layer_id: usize, slides: bool) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: self.query_pre_attn_scalar.sqrt().recip(),
            sliding_window: slides.then_some(self.sliding_window),
            soft_cap: Some(self.attn_logit_softcapping),
            ..AttentionShape::default()
        }
    }
}

fn gelu() -> Activation {
    Activation::GeluNew
}

fn scalar() -> f32 {
    256.0
}

fn score_cap() -> f32 {
    50.0
}

fn logit_cap() -> f32 {
    30.0
}

fn window() -> usize {
    4096
}
