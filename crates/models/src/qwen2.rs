//! Qwen2 and 2.5, dense: Llama's graph with biases on q, k and v.
//!
//! Upstream: `sglang/srt/models/qwen2.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm, Rope,
    RopeConfig, RopePositions, Weights,
};

use crate::{
    Body, CausalLm, ModelEntry,
    config::{left_over, pack_all},
    residual::forward_layers,
};

mod config;

pub(crate) use config::Qwen2Config;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen2ForCausalLM"],
    model_types: &["qwen2"],
    models: "Qwen1.5, Qwen2 and Qwen2.5, R1 distills of them",
    left_over,
    quant: pack_all,
    load: |hf, w| Ok(Box::new(Qwen2ForCausalLm::load(hf, &w.at("model"), w.at("lm_head"))?)),
};

pub(crate) struct Qwen2ForCausalLm {
    config: Qwen2Config,
    context_length: usize,
    model: Qwen2Model<GatedMlp>,
    lm_head: LmHead,
}

/// Layers whose second half is `M`: an MLP, or experts.
pub(crate) struct Qwen2Model<M> {
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer<M>>,
    norm: RmsNorm,
}

struct DecoderLayer<M> {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: M,
}

/// The second half of a layer.
pub(crate) trait Feedforward: Sized {
    /// Takes the half of layer `layer_id`.
    fn load(config: &Qwen2Config, layer_id: usize, w: Weights) -> Result<Self, LoadError>;

    /// `[num_tokens, hidden]` to the same.
    fn forward(&self, hidden: &Array) -> Result<Array>;
}

struct Attention {
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
}

impl CausalLm for Qwen2ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let hidden = self.model.hidden_states(batch)?;
        self.lm_head.forward(&hidden)
    }

    fn body(&self) -> Option<&dyn Body> {
        Some(&self.model)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        self.config.kv_layout()
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

impl<M: Feedforward> Body for Qwen2Model<M> {
    /// Rows that nobody samples are dropped before the last norm.
    fn hidden_states(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
            layer.forward(hidden, delta, rope, batch)
        })
    }
}

impl<M: Feedforward> DecoderLayer<M> {
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
        let qkv = self.self_attn.qkv_proj.forward(&normed)?;
        let attn = self.self_attn.attn.forward_rope(&qkv, rope, batch)?;
        let attn = self.self_attn.o_proj.forward(&attn)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.mlp.forward(&normed)?))
    }
}

impl Qwen2ForCausalLm {
    /// From the tensors of `model` and of `head`, if the head is not tied.
    pub(crate) fn load(hf: &HfConfig, model: &Weights, head: Weights) -> Result<Self, LoadError> {
        let config = Qwen2Config::new(hf)?;
        let (model, lm_head) = Qwen2Model::load(&config, hf, model, head)?;
        Ok(Self { context_length: hf.context_length(), config, model, lm_head })
    }
}

impl<M: Feedforward> Qwen2Model<M> {
    /// The model and its head.
    pub(crate) fn load(
        config: &Qwen2Config,
        hf: &HfConfig,
        model: &Weights,
        head: Weights,
    ) -> Result<(Self, LmHead), LoadError> {
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &RopeConfig::from_config(hf)?)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer_id| {
                DecoderLayer::load(config, layer_id, model.at("layers").layer(layer_id))
            })
            .collect::<Result<_, _>>()?;
        let model = Self {
            embed_tokens: Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?,
            rope,
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
        };
        let lm_head = match tied {
            true => model.embed_tokens.as_head()?,
            false => LmHead::load(head, hidden, vocab)?,
        };
        Ok((model, lm_head))
    }
}

impl<M: Feedforward> DecoderLayer<M> {
    fn load(config: &Qwen2Config, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layer_id, w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: M::load(config, layer_id, w.at("mlp"))?,
        })
    }
}

impl Attention {
    fn load(config: &Qwen2Config, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let shape = config.attention_shape(layer_id);
        let hidden = config.hidden_size;
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        Ok(Self {
            qkv_proj: MergedLinear::load(
                &[(w.at("q_proj"), q_dim), (w.at("k_proj"), kv_dim), (w.at("v_proj"), kv_dim)],
                hidden,
                config.qkv_bias,
            )?,
            o_proj: Linear::load(w.at("o_proj"), q_dim, hidden, false)?,
            attn: RadixAttention::new(shape),
        })
    }
}

impl Feedforward for GatedMlp {
    fn load(config: &Qwen2Config, _layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let sizes = [config.hidden_size, config.intermediate_size];
        Self::load(&w, sizes, config.hidden_act, false)
    }

    fn forward(&self, hidden: &Array) -> Result<Array> {
        self.forward(hidden)
    }
}

impl Qwen2Config {
    pub(crate) fn kv_layout(&self) -> Vec<AttentionShape> {
        (0..self.num_hidden_layers).map(|layer| self.attention_shape(layer)).collect()
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_kv_heads(),
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            sliding_window: self.window(layer_id),
            ..AttentionShape::default()
        }
    }
}
