//! Llama and the families that share its graph (Mistral, SmolLM, Yi).
//!
//! Struct fields carry the checkpoint's names, so the load path below *is* the
//! weight map; layers of one input are merged into one product, as upstream.
//!
//! Upstream: `sglang/srt/models/llama.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm, Rope,
    RopeConfig, RopePositions, Weights,
};

use crate::{
    Body, CausalLm, ModelEntry,
    config::{left_over, pack_all},
    residual::forward_layers,
};

mod config;

pub(crate) use config::LlamaConfig;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["LlamaForCausalLM", "MistralForCausalLM"],
    model_types: &["llama", "mistral"],
    models: "Llama 2 and 3, TinyLlama, SmolLM, Yi, Mistral 7B",
    left_over,
    quant: pack_all,
    load: |hf, w| Ok(Box::new(LlamaForCausalLm::load(hf, w.at("model"), w.at("lm_head"))?)),
};

pub(crate) struct LlamaForCausalLm {
    config: LlamaConfig,
    context_length: usize,
    model: LlamaModel,
    lm_head: LmHead,
}

struct LlamaModel {
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

struct Attention {
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
}

struct Mlp {
    gate_up_proj: MergedLinear,
    down_proj: Linear,
    act: Activation,
}

impl CausalLm for LlamaForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let hidden = self.model.hidden_states(batch)?;
        self.lm_head.forward(&hidden)
    }

    fn body(&self) -> Option<&dyn Body> {
        Some(&self.model)
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

impl Body for LlamaModel {
    /// Rows that nobody samples are dropped before the last norm.
    fn hidden_states(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
            layer.forward(hidden, delta, rope, batch)
        })
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
        let attn = self.self_attn.forward(&normed, rope, batch)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.mlp.forward(&normed)?))
    }
}

impl Attention {
    fn forward(
        &self,
        hidden: &Array,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let qkv = self.qkv_proj.forward(hidden)?;
        self.o_proj.forward(&self.attn.forward_rope(&qkv, rope, batch)?)
    }
}

impl Mlp {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        self.down_proj.forward(&self.act.and_mul(&self.gate_up_proj.forward(hidden)?)?)
    }
}

impl LlamaForCausalLm {
    /// From the tensors of `model` and of `head`, if the head is not tied.
    pub(crate) fn load(hf: &HfConfig, model: Weights, head: Weights) -> Result<Self, LoadError> {
        let config = LlamaConfig::new(hf)?;
        let model = LlamaModel::load(&config, &RopeConfig::from_config(hf)?, model)?;
        let lm_head = if config.tie_word_embeddings {
            model.embed_tokens.as_head()?
        } else {
            LmHead::load(head, config.hidden_size, config.vocab_size)?
        };
        Ok(Self { context_length: hf.context_length(), config, model, lm_head })
    }
}

impl LlamaModel {
    fn load(config: &LlamaConfig, rope: &RopeConfig, w: Weights) -> Result<Self, LoadError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let rope = Rope::new(config.head_dim(), rope)?; // Refuses before anything is read.
        let layers = (0..config.num_hidden_layers)
            .map(|layer_id| DecoderLayer::load(config, layer_id, w.at("layers").layer(layer_id)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embed_tokens: Embedding::load(
                w.at("embed_tokens"),
                vocab,
                hidden,
                config.tie_word_embeddings,
            )?,
            rope,
            layers,
            norm: RmsNorm::load(w.at("norm"), hidden, config.rms_norm_eps)?,
        })
    }
}

impl DecoderLayer {
    fn load(config: &LlamaConfig, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layer_id, w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(config, w.at("mlp"))?,
        })
    }
}

impl Attention {
    fn load(config: &LlamaConfig, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let shape = config.attention_shape(layer_id);
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        Ok(Self {
            qkv_proj: MergedLinear::load(
                &[(w.at("q_proj"), q_dim), (w.at("k_proj"), kv_dim), (w.at("v_proj"), kv_dim)],
                hidden,
                bias,
            )?,
            o_proj: Linear::load(w.at("o_proj"), q_dim, hidden, config.out_bias())?,
            attn: RadixAttention::new(shape),
        })
    }
}

impl Mlp {
    fn load(config: &LlamaConfig, w: Weights) -> Result<Self, LoadError> {
        let (hidden, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        Ok(Self {
            gate_up_proj: MergedLinear::load(
                &[(w.at("gate_proj"), inner), (w.at("up_proj"), inner)],
                hidden,
                bias,
            )?,
            down_proj: Linear::load(w.at("down_proj"), inner, hidden, bias)?,
            act: config.hidden_act,
        })
    }
}

impl LlamaConfig {
    pub(crate) fn attention_shape(&self, layer_id: usize) -> AttentionShape {
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
