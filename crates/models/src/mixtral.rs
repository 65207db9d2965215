//! Mixtral: Mistral's layers with a mixture of experts for their MLP.
//!
//! Upstream: `sglang/srt/models/mixtral.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Embedding, HfConfig, Linear, LmHead, LoadError, MergedLinear, MoeDims, RmsNorm, Rope,
    RopeConfig, RopePositions, TopK, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over, pack_all},
    residual::forward_layers,
    sparse_moe::{SparseMoe, W_NAMES},
};

mod config;

use config::MixtralConfig;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["MixtralForCausalLM"],
    model_types: &["mixtral"],
    models: "Mixtral 8x7B and 8x22B",
    left_over,
    quant: pack_all,
    load: |config, weights| Ok(Box::new(MixtralForCausalLm::load(config, weights)?)),
};

struct MixtralForCausalLm {
    config: MixtralConfig,
    context_length: usize,
    model: MixtralModel,
    lm_head: LmHead,
}

struct MixtralModel {
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    block_sparse_moe: SparseMoe,
}

struct Attention {
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
}

impl CausalLm for MixtralForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let hidden = self.model.forward(batch)?;
        self.lm_head.forward(&hidden)
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

impl MixtralModel {
    /// `[num_sampled, hidden]`: rows that nobody samples are dropped before
    /// the last norm.
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
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
        Ok((hidden, self.block_sparse_moe.forward(&normed)?))
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

impl MixtralForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = MixtralConfig::new(hf)?;
        let model = MixtralModel::load(&config, &config::rope(hf)?, w.at("model"))?;
        let lm_head = if config.tie_word_embeddings {
            model.embed_tokens.as_head()?
        } else {
            LmHead::load(w.at("lm_head"), config.hidden_size, config.vocab_size)?
        };
        Ok(Self { context_length: hf.context_length(), config, model, lm_head })
    }
}

impl MixtralModel {
    fn load(config: &MixtralConfig, rope: &RopeConfig, w: Weights) -> Result<Self, LoadError> {
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
    fn load(config: &MixtralConfig, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layer_id, w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            block_sparse_moe: config.load_experts(&w.at("block_sparse_moe"))?,
        })
    }
}

impl Attention {
    fn load(config: &MixtralConfig, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let shape = config.attention_shape(layer_id);
        let hidden = config.hidden_size;
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        Ok(Self {
            qkv_proj: MergedLinear::load(
                &[(w.at("q_proj"), q_dim), (w.at("k_proj"), kv_dim), (w.at("v_proj"), kv_dim)],
                hidden,
                false,
            )?,
            o_proj: Linear::load(w.at("o_proj"), q_dim, hidden, false)?,
            attn: RadixAttention::new(shape),
        })
    }
}

impl MixtralConfig {
    fn load_experts(&self, w: &Weights) -> Result<SparseMoe, LoadError> {
        let (num_experts, hidden) = (self.num_local_experts, self.hidden_size);
        let dims = MoeDims { num_experts, hidden, inner: self.intermediate_size };
        // A softmax over the chosen alone is one over all, made to add up to one.
        let top_k = TopK { top_k: self.num_experts_per_tok, renormalize: true };
        SparseMoe::load(w, W_NAMES, dims, top_k, self.hidden_act)
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_kv_heads(),
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            sliding_window: self.sliding_window,
            ..AttentionShape::default()
        }
    }
}
