//! OLMoE: Llama's layers with norms of q and k that span all heads, and experts for MLPs.
//!
//! Upstream: `sglang/srt/models/olmoe.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, HfConfig, Linear, LmHead, LoadError, MergedLinear, MoeDims, RmsNorm,
    Rope, RopeConfig, RopePositions, TopK, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{check_heads, check_sizes, default_act, is_tied, left_over, pack_all},
    residual::forward_layers,
    row_norms::RowNorms,
    sparse_moe::{PROJ_NAMES, SparseMoe},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["OlmoeForCausalLM"],
    model_types: &["olmoe"],
    models: "OLMoE-1B-7B",
    left_over,
    quant: pack_all,
    load: |hf, weights| Ok(Box::new(OlmoeForCausalLm::load(hf, weights)?)),
};

/// Every field of config.json that changes the graph.
#[derive(Debug, Clone, Deserialize)]
struct OlmoeConfig {
    hidden_size: usize,
    /// Inner width of an expert.
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
    rms_norm_eps: f32,
    num_experts: usize,
    num_experts_per_tok: usize,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    clip_qkv: Option<f32>,
    #[serde(skip)]
    tie_word_embeddings: bool,
}

struct OlmoeForCausalLm {
    config: OlmoeConfig,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: SparseMoe,
}

struct Attention {
    qkv_proj: MergedLinear,
    norms: RowNorms,
    o_proj: Linear,
    attn: RadixAttention,
}

impl CausalLm for OlmoeForCausalLm {
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

    /// What a token's experts have together.
    fn intermediate_size(&self) -> usize {
        self.config.num_experts_per_tok * self.config.intermediate_size
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
        let qkv = self.norms.forward(&self.qkv_proj.forward(hidden)?)?;
        self.o_proj.forward(&self.attn.forward_rope(&qkv, rope, batch)?)
    }
}

impl OlmoeForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let config = OlmoeConfig::new(hf)?;
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &RopeConfig::from_config(hf)?)?;
        let model = w.at("model");
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
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
        config: &OlmoeConfig,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layer_id, &w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: config.load_experts(&w.at("mlp"))?,
        })
    }
}

impl Attention {
    fn load(
        config: &OlmoeConfig,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let shape = config.attention_shape(layer_id);
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let parts = [(w.at("q_proj"), q), (w.at("k_proj"), kv), (w.at("v_proj"), kv)];
        Ok(Self {
            qkv_proj: MergedLinear::load(&parts, hidden, bias)?,
            norms: RowNorms::load(w, &shape, config.rms_norm_eps)?,
            o_proj: Linear::load(w.at("o_proj"), q, hidden, bias)?,
            attn: RadixAttention::new(shape),
        })
    }
}

impl OlmoeConfig {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_experts", config.num_experts),
            ("vocab_size", config.vocab_size),
        ])?;
        let heads = [config.num_attention_heads, config.num_kv_heads()];
        check_heads(config.hidden_size, heads, config.head_dim)?;
        let unsupported = |what, value| Err(LoadError::Unsupported { what, value });
        match (config.mlp_bias, config.clip_qkv) {
            (true, _) => unsupported("mlp_bias", "true".to_owned()),
            (_, Some(clip)) => unsupported("clip_qkv", clip.to_string()),
            (false, None) => Ok(config),
        }
    }

    fn num_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn load_experts(&self, w: &Weights) -> std::result::Result<SparseMoe, LoadError> {
        let (num_experts, hidden) = (self.num_experts, self.hidden_size);
        let dims = MoeDims { num_experts, hidden, inner: self.intermediate_size };
        let top_k = TopK { top_k: self.num_experts_per_tok, renormalize: self.norm_topk_prob };
        SparseMoe::load(w, PROJ_NAMES, dims, top_k, self.hidden_act)
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_kv_heads(),
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            ..AttentionShape::default()
        }
    }
}
