//! Command R7B: both halves of a layer read one norm of mean and variance, and layers
//! without a window have no positions.
//!
//! Upstream: `sglang/srt/models/commandr.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, LayerNorm, Linear, LmHead, LoadError, MergedLinear,
    Rope, RopeConfig, RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{
        LayerType, check_heads, check_sizes, config_error, default_act, left_over, pack_all,
        sliding_layers,
    },
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Cohere2ForCausalLM"],
    model_types: &["cohere2"],
    models: "Command R7B, Command A",
    left_over,
    quant: pack_all,
    load: |config, weights| Ok(Box::new(Cohere2ForCausalLm::load(config, weights)?)),
};

#[derive(Deserialize)]
struct Cohere2Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
    head_dim: Option<usize>,
    layer_norm_eps: f32,
    #[serde(default)]
    layer_norm_bias: bool,
    #[serde(default)]
    use_qk_norm: bool,
    use_parallel_block: Option<bool>,
    #[serde(default)]
    attention_bias: bool,
    logit_scale: f32,
    sliding_window: usize,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    #[serde(skip)]
    slides: Vec<bool>,
}

struct Cohere2ForCausalLm {
    config: Cohere2Config,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    /// Of layers without a window.
    nope: Rope,
    layers: Vec<DecoderLayer>,
    norm: LayerNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: LayerNorm,
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
    mlp: GatedMlp,
}

impl CausalLm for Cohere2ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let nope = (&self.nope, &self.nope.at(&batch.positions)?);
        let mut hidden = self.embed_tokens.forward(&batch.input_ids)?;
        for layer in &self.layers {
            let has_window = layer.attn.shape().sliding_window.is_some();
            hidden = layer.forward(&hidden, if has_window { rope } else { nope }, batch)?;
        }
        let hidden = self.norm.forward(&batch.select_sampled(&hidden)?)?;
        self.lm_head.forward(&hidden)?.mul_scalar(self.config.logit_scale)
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
    fn forward(
        &self,
        hidden: &Array,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let normed = self.input_layernorm.forward(hidden)?;
        let qkv = self.qkv_proj.forward(&normed)?;
        let attn = self.o_proj.forward(&self.attn.forward_rope(&qkv, rope, batch)?)?;
        attn.add(&self.mlp.forward(&normed)?)?.add(hidden)
    }
}

impl Cohere2ForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = Cohere2Config::new(hf)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let rope = RopeConfig { traditional: true, ..RopeConfig::from_config(hf)? };
        let rope = Rope::new(config.head_dim(), &rope)?;
        let model = w.at("model");
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, true)?;
        Ok(Self {
            context_length: hf.context_length(),
            lm_head: embed_tokens.as_head()?,
            embed_tokens,
            rope,
            nope: Rope::still(config.head_dim())?,
            layers,
            norm: LayerNorm::load(model.at("norm"), hidden, config.layer_norm_eps)?,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(config: &Cohere2Config, layer_id: usize, w: &Weights) -> Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let norm = w.at("input_layernorm");
        let shape = config.attention_shape(layer_id);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let at = w.at("self_attn");
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        let mlp = [hidden, config.intermediate_size];
        Ok(Self {
            input_layernorm: LayerNorm::load(norm, hidden, config.layer_norm_eps)?,
            qkv_proj: MergedLinear::load(&qkv, hidden, bias)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, bias)?,
            attn: RadixAttention::new(shape),
            mlp: GatedMlp::load(&w.at("mlp"), mlp, config.hidden_act, false)?,
        })
    }
}

impl Cohere2Config {
    fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
            ("sliding_window", config.sliding_window),
        ])?;
        check_heads(
            config.hidden_size,
            [config.num_attention_heads, config.num_key_value_heads],
            config.head_dim,
        )?;
        for (field, is_set) in
            [("layer_norm_bias", config.layer_norm_bias), ("use_qk_norm", config.use_qk_norm)]
        {
            if is_set {
                return Err(config_error(field, "true is not supported".to_owned()));
            }
        }
        if config.use_parallel_block == Some(false) {
            return Err(config_error("use_parallel_block", "false is not supported".to_owned()));
        }
        let pattern = config.sliding_window_pattern.unwrap_or(4);
        config.slides =
            sliding_layers(config.layer_types.as_deref(), pattern, config.num_hidden_layers)?;
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
            sliding_window: self.slides[layer_id].then_some(self.sliding_window),
            ..AttentionShape::default()
        }
    }
}
