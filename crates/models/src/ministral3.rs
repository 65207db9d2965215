//! Ministral 3: Llama's graph, with queries that grow with their position: attention
//! stays sharp in contexts beyond the one the model was trained in.
//!
//! Upstream: none; `mlx_lm/models/ministral3.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Dtype, Result};
use nn::{
    Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm, Rope,
    RopeConfig, RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{config_error, left_over, pack_all},
    llama::LlamaConfig,
    residual::forward_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Ministral3ForCausalLM"],
    model_types: &["ministral3"],
    models: "Ministral 3, text only",
    left_over,
    quant: pack_all,
    load: |hf, w| Ok(Box::new(Ministral3ForCausalLm::load(hf, w.at("model"), w.at("lm_head"))?)),
};

/// How queries grow.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Growth {
    llama_4_scaling_beta: f32,
    /// Queries before this position do not grow.
    original_max_position_embeddings: usize,
}

#[derive(Deserialize)]
struct Positions {
    rope_parameters: Growth,
}

pub(crate) struct Ministral3ForCausalLm {
    config: LlamaConfig,
    context_length: usize,
    growth: Growth,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    qkv_proj: MergedLinear,
    /// Outputs of `qkv_proj` that are queries.
    q_dim: usize,
    o_proj: Linear,
    attn: RadixAttention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl CausalLm for Ministral3ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        let growth = self.growth.at(&batch.positions)?.astype(hidden.dtype())?;
        let normed =
            forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
                layer.forward(hidden, delta, rope, &growth, batch)
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

impl Growth {
    /// Factors on the queries at `positions`, `[num_tokens, 1]` f32.
    fn at(self, positions: &Array) -> Result<Array> {
        let origin = Array::scalar(self.original_max_position_embeddings as i32)?;
        let times = positions.floor_divide(&origin)?.astype(Dtype::Float32)?;
        let growth = times.add_scalar(1.0)?.log()?.mul_scalar(self.llama_4_scaling_beta)?;
        growth.add_scalar(1.0)?.expand_dims(1)
    }
}

impl DecoderLayer {
    /// The residual stream, and what is to be added to it.
    fn forward(
        &self,
        hidden: &Array,
        delta: Option<&Array>,
        rope: (&Rope, &RopePositions),
        growth: &Array,
        batch: &ForwardBatch,
    ) -> Result<(Array, Array)> {
        let (hidden, normed) = self.input_layernorm.forward_residual(hidden, delta)?;
        let qkv = self.qkv_proj.forward(&normed)?.split_at(&[self.q_dim], 1)?;
        // Before they rotate, which changes no length.
        let qkv = Array::concatenate(&[&qkv[0].multiply(growth)?, &qkv[1]], 1)?;
        let attn = self.o_proj.forward(&self.attn.forward_rope(&qkv, rope, batch)?)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.mlp.forward(&normed)?))
    }
}

impl Ministral3ForCausalLm {
    /// From the tensors of `model` and of `head`, if the head is not tied.
    pub(crate) fn load(
        hf: &HfConfig,
        model: Weights,
        head: Weights,
    ) -> std::result::Result<Self, LoadError> {
        let config = LlamaConfig::new(hf)?;
        let growth = hf.parse::<Positions>()?.rope_parameters;
        if growth.original_max_position_embeddings == 0 {
            let field = "rope_parameters.original_max_position_embeddings";
            return Err(config_error(field, "must be positive".to_owned()));
        }
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &RopeConfig::from_config(hf)?)?;
        let layer =
            |layer_id| DecoderLayer::load(&config, layer_id, &model.at("layers").layer(layer_id));
        let layers =
            (0..config.num_hidden_layers).map(layer).collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(head, hidden, vocab)?,
        };
        Ok(Self {
            context_length: hf.context_length(),
            growth,
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
    fn load(
        config: &LlamaConfig,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = config.hidden_size;
        let norm = |name| RmsNorm::load(w.at(name), hidden, config.rms_norm_eps);
        let shape = config.attention_shape(layer_id);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let at = w.at("self_attn");
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        let sizes = [hidden, config.intermediate_size];
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&qkv, hidden, false)?,
            q_dim,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, false)?,
            attn: RadixAttention::new(shape),
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load(&w.at("mlp"), sizes, config.hidden_act, false)?,
        })
    }
}
