//! Gemma 3, text only: norms around both halves of a layer, and of five layers in six a
//! window with rotations of their own.
//!
//! Upstream: `sglang/srt/models/gemma3_causal.py`.

use attention::{AttentionShape, ForwardBatch, HeadNorms, RadixAttention};
use mlx::{Array, Dtype, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm,
    Rope, RopeConfig, RopePositions, RopeScaling, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{LayerType, check_heads, check_sizes, left_over, pack_all, sliding_layers},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Gemma3ForCausalLM"],
    model_types: &["gemma3_text"],
    models: "Gemma 3 1B and 270M",
    left_over,
    quant: pack_all,
    load: |hf, w| {
        let config = Gemma3Config::new(hf)?;
        Ok(Box::new(Gemma3ForCausalLm::load(config, hf, &w.at("model"), w.at("lm_head"))?))
    },
};

/// Where config.json names none.
const CONTEXT_LENGTH: usize = 131_072;

/// Every field of config.json that changes the graph. Published ones leave out what is
/// the default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Gemma3Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    pub(crate) vocab_size: usize,
    hidden_activation: Activation,
    rms_norm_eps: f32,
    query_pre_attn_scalar: f32,
    rope_theta: f32,
    rope_local_base_freq: f32,
    sliding_window: usize,
    sliding_window_pattern: usize,
    layer_types: Option<Vec<LayerType>>,
    max_position_embeddings: Option<usize>,
}

impl Default for Gemma3Config {
    fn default() -> Self {
        Self {
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            vocab_size: 262_208,
            hidden_activation: Activation::GeluNew,
            rms_norm_eps: 1e-6,
            query_pre_attn_scalar: 256.0,
            rope_theta: 1e6,
            rope_local_base_freq: 1e4,
            sliding_window: 4096,
            sliding_window_pattern: 6,
            layer_types: None,
            max_position_embeddings: None,
        }
    }
}

pub(crate) struct Gemma3ForCausalLm {
    config: Gemma3Config,
    slides: Vec<bool>,
    context_length: usize,
    embed_tokens: Embedding,
    /// Factor on embeddings.
    embed_scale: f32,
    rope: Rope,
    /// Of layers with a window.
    local_rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    slides: bool,
    input_layernorm: RmsNorm,
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

impl CausalLm for Gemma3ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let local = (&self.local_rope, &self.local_rope.at(&batch.positions)?);
        let mut hidden =
            self.embed_tokens.forward(&batch.input_ids)?.mul_scalar(self.embed_scale)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, if layer.slides { local } else { rope }, batch)?;
        }
        self.lm_head.forward(&self.norm.forward(&batch.select_sampled(&hidden)?)?)
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

/// The residual stream outgrows f16: there it stays at the end of the range.
pub(crate) fn add_clipped(x: &Array, y: &Array) -> Result<Array> {
    const MOST: f32 = 65504.0;
    if x.dtype() != Dtype::Float16 {
        return x.add(y);
    }
    let sum = x.astype(Dtype::Float32)?.add(&y.astype(Dtype::Float32)?)?;
    let sum = sum.minimum(&Array::scalar(MOST)?)?.maximum(&Array::scalar(-MOST)?)?;
    sum.astype(Dtype::Float16)
}

impl Gemma3ForCausalLm {
    /// From the tensors of `model` and of `head`; without those the head is tied.
    pub(crate) fn load(
        config: Gemma3Config,
        hf: &HfConfig,
        model: &Weights,
        head: Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (vocab, hidden, tied) = (config.vocab_size, config.hidden_size, head.is_empty());
        // Refuses before anything is read.
        let global = RopeConfig { theta: config.rope_theta, ..RopeConfig::from_config(hf)? };
        let local = RopeConfig {
            theta: config.rope_local_base_freq,
            scaling: RopeScaling::Default,
            ..global.clone()
        };
        let (rope, local_rope) =
            (Rope::new(config.head_dim, &global)?, Rope::new(config.head_dim, &local)?);
        let layers = config.layer_types.as_deref();
        let slides =
            sliding_layers(layers, config.sliding_window_pattern, config.num_hidden_layers)?;
        let layer = |(id, &slides): (usize, &bool)| {
            DecoderLayer::load(&config, (id, slides), &model.at("layers").layer(id))
        };
        let layers = slides.iter().enumerate().map(layer).collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(head, hidden, vocab)?,
        };
        // Rounded to bf16 whatever is computed in.
        let scale = Array::scalar((hidden as f32).sqrt())?.astype(Dtype::Bfloat16)?;
        Ok(Self {
            context_length: match config.max_position_embeddings {
                Some(_) => hf.context_length(),
                None => CONTEXT_LENGTH,
            },
            slides,
            embed_tokens,
            embed_scale: scale.astype(Dtype::Float32)?.item()?,
            rope,
            local_rope,
            layers,
            norm: RmsNorm::load_above_one(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(
        config: &Gemma3Config,
        (layer_id, slides): (usize, bool),
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, head_dim) = (config.hidden_size, config.head_dim);
        let norm = |w: Weights, width| RmsNorm::load_above_one(w, width, config.rms_norm_eps);
        let row_norm = |name: &str| norm(w.at(name), hidden);
        let at = w.at("self_attn");
        let shape = config.attention_shape(layer_id, slides);
        let (q_dim, kv_dim) = (shape.num_heads * head_dim, shape.num_kv_heads * head_dim);
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        let norms =
            HeadNorms { q: norm(at.at("q_norm"), head_dim)?, k: norm(at.at("k_norm"), head_dim)? };
        let sizes = [hidden, config.intermediate_size];
        Ok(Self {
            slides,
            input_layernorm: row_norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&qkv, hidden, false)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, false)?,
            attn: RadixAttention::new(shape).with_norms(norms),
            post_attention_layernorm: row_norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: row_norm("pre_feedforward_layernorm")?,
            mlp: GatedMlp::load(&w.at("mlp"), sizes, config.hidden_activation, false)?,
            post_feedforward_layernorm: row_norm("post_feedforward_layernorm")?,
        })
    }
}

impl Gemma3Config {
    pub(crate) fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
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
            ..AttentionShape::default()
        }
    }
}
