//! GLM-4.5 and later: grouped attention, of whose heads a part rotates, and DeepSeek's
//! experts.
//!
//! Upstream: `sglang/srt/models/glm4_moe.py`.

use attention::{AttentionShape, ForwardBatch, HeadNorms, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Embedding, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm, Rope, RopeConfig,
    RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{check_kv_heads, check_sizes, is_tied, pack_all},
    deepseek_moe::{MlpOrExperts, MoeConfig},
    deepseek_v3::left_over_layers,
    residual::forward_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Glm4MoeForCausalLM"],
    model_types: &["glm4_moe"],
    models: "GLM-4.5, 4.5-Air, 4.6, 4.7",
    left_over: left_over_layers,
    quant: pack_all,
    load: |hf, weights| Ok(Box::new(Glm4MoeForCausalLm::load(hf, weights)?)),
};

/// Every field of config.json that changes the graph.
#[derive(Debug, Clone, Deserialize)]
struct Glm4MoeConfig {
    #[serde(flatten)]
    moe: MoeConfig,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f32,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    use_qk_norm: bool,
    #[serde(skip)]
    tie_word_embeddings: bool,
}

struct Glm4MoeForCausalLm {
    config: Glm4MoeConfig,
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
    mlp: MlpOrExperts,
}

impl CausalLm for Glm4MoeForCausalLm {
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
        self.config.moe.widest()
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

impl Glm4MoeForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let config = Glm4MoeConfig::new(hf)?;
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &RopeConfig::partial_from_config(hf)?)?;
        let model = w.at("model");
        let layer =
            |layer_id| DecoderLayer::load(&config, layer_id, &model.at("layers").layer(layer_id));
        let layers =
            (0..config.num_hidden_layers).map(layer).collect::<std::result::Result<_, _>>()?;
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
    fn load(
        config: &Glm4MoeConfig,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let shape = config.attention_shape(layer_id);
        let (head_dim, at) = (shape.head_dim, w.at("self_attn"));
        let (q_dim, kv_dim) = (shape.num_heads * head_dim, shape.num_kv_heads * head_dim);
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        let norm = |w: Weights, width| RmsNorm::load(w, width, config.rms_norm_eps);
        let mut attn = RadixAttention::new(shape);
        if config.use_qk_norm {
            let (q, k) = (norm(at.at("q_norm"), head_dim)?, norm(at.at("k_norm"), head_dim)?);
            attn = attn.with_norms(HeadNorms { q, k });
        }
        Ok(Self {
            input_layernorm: norm(w.at("input_layernorm"), hidden)?,
            qkv_proj: MergedLinear::load(&qkv, hidden, bias)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, false)?,
            attn,
            post_attention_layernorm: norm(w.at("post_attention_layernorm"), hidden)?,
            mlp: MlpOrExperts::load(&config.moe, hidden, layer_id, &w.at("mlp"))?,
        })
    }
}

impl Glm4MoeConfig {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.moe.as_v3()?;
        config.moe.check()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim()),
            ("vocab_size", config.vocab_size),
        ])?;
        check_kv_heads(config.num_attention_heads, config.num_key_value_heads)?;
        Ok(config)
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
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
