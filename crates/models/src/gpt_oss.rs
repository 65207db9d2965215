//! gpt-oss: a window in every other layer, sinks in all, and experts with biases whose gates
//! and values are clamped.
//!
//! Where `rope_scaling` says `truncate: false`, as in the models as published, the ramp of
//! YaRN lies between pairs, as the reference has it; mlx-lm rounds it to whole ones.
//!
//! Upstream: `sglang/srt/models/gpt_oss.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention, Sinks};
use mlx::{Array, Result};
use nn::{
    Embedding, FusedMoe, HfConfig, Linear, LmHead, LoadError, MergedLinear, MoeDims, QuantChoice,
    RmsNorm, Rope, RopeConfig, RopePositions, TopK, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{ROUTER_PACKING, left_over},
    residual::forward_layers,
};

mod config;

use config::GptOssConfig;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["GptOssForCausalLM"],
    model_types: &["gpt_oss"],
    models: "gpt-oss-20b and 120b",
    left_over,
    quant: |path| match path.ends_with("router") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    },
    load: |config, weights| Ok(Box::new(GptOssForCausalLm::load(config, weights)?)),
};

struct GptOssForCausalLm {
    config: GptOssConfig,
    context_length: usize,
    model: GptOssModel,
    lm_head: LmHead,
}

struct GptOssModel {
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: SparseMoeBlock,
}

struct Attention {
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
}

struct SparseMoeBlock {
    router: Linear,
    experts: FusedMoe,
}

impl CausalLm for GptOssForCausalLm {
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

impl GptOssModel {
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

impl SparseMoeBlock {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        self.experts.forward(hidden, &self.router.forward(hidden)?)
    }
}

impl GptOssForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = GptOssConfig::new(hf)?;
        let model = GptOssModel::load(&config, &config::rope(hf)?, w.at("model"))?;
        let lm_head = LmHead::load(w.at("lm_head"), config.hidden_size, config.vocab_size)?;
        Ok(Self { context_length: hf.context_length(), config, model, lm_head })
    }
}

impl GptOssModel {
    fn load(config: &GptOssConfig, rope: &RopeConfig, w: Weights) -> Result<Self, LoadError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let rope = Rope::new(config.head_dim, rope)?; // Refuses before anything is read.
        let layers = (0..config.num_hidden_layers)
            .map(|layer_id| DecoderLayer::load(config, layer_id, w.at("layers").layer(layer_id)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embed_tokens: Embedding::load(w.at("embed_tokens"), vocab, hidden, false)?,
            rope,
            layers,
            norm: RmsNorm::load(w.at("norm"), hidden, config.rms_norm_eps)?,
        })
    }
}

impl DecoderLayer {
    fn load(config: &GptOssConfig, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layer_id, w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: SparseMoeBlock::load(config, w.at("mlp"))?,
        })
    }
}

impl Attention {
    fn load(config: &GptOssConfig, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        let shape = config.attention_shape(layer_id);
        let hidden = config.hidden_size;
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let sinks = Sinks::new(&w.take("sinks", &[shape.num_heads])?)?;
        Ok(Self {
            qkv_proj: MergedLinear::load(
                &[(w.at("q_proj"), q_dim), (w.at("k_proj"), kv_dim), (w.at("v_proj"), kv_dim)],
                hidden,
                true,
            )?,
            o_proj: Linear::load(w.at("o_proj"), q_dim, hidden, true)?,
            attn: RadixAttention::new(shape).with_sinks(sinks),
        })
    }
}

impl SparseMoeBlock {
    fn load(config: &GptOssConfig, w: Weights) -> Result<Self, LoadError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let num_experts = config.num_local_experts;
        // A softmax over the chosen alone is one over all, made to add up to one.
        let top_k = TopK { top_k: config.num_experts_per_tok, renormalize: true };
        let dims = MoeDims { num_experts, hidden, inner };
        Ok(Self {
            router: Linear::load(w.at("router"), hidden, num_experts, true)?,
            experts: FusedMoe::load_clamped(&w.at("experts"), dims, top_k, config.swiglu_limit)?,
        })
    }
}

impl GptOssConfig {
    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).sqrt().recip(),
            sliding_window: self.slides[layer_id].then_some(self.sliding_window),
            ..AttentionShape::default()
        }
    }
}
