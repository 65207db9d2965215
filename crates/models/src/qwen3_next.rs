//! Qwen3-Next: three of four layers are recurrent (Gated DeltaNet), the others attend
//! with gates on their output; experts with one more that takes every token.
//!
//! Upstream: `sglang/srt/models/qwen3_next.py`.

use attention::{AttentionShape, ForwardBatch, HeadNorms, RadixAttention, StateShape};
use mlx::{Array, Result};
use nn::{
    Embedding, GatedMlp, HfConfig, LeftOver, Linear, LmHead, LoadError, MergedLinear, MoeDims,
    QuantChoice, RmsNorm, Rope, RopeConfig, RopePositions, TopK, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{ROUTER_PACKING, left_over},
    gated_delta_net::{GatedDeltaNet, Layout},
    residual::forward_layers,
    shared_expert_moe::SharedExpertMoe,
};

mod config;

pub(crate) use config::HybridConfig;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen3NextForCausalLM"],
    model_types: &["qwen3_next"],
    models: "Qwen3-Next-80B-A3B, Qwen3-Coder-Next",
    left_over: left_over_mtp,
    quant: pack_routers,
    load,
};

/// Routers, and the gates of shared experts, take 8 bits.
pub(crate) fn pack_routers(path: &str) -> QuantChoice {
    match path.ends_with("mlp.gate") || path.ends_with("shared_expert_gate") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    }
}

/// What predicts further tokens at once is not used.
fn left_over_mtp(config: &HfConfig) -> Vec<LeftOver<'static>> {
    left_over(config).into_iter().chain([LeftOver::Module("mtp")]).collect()
}

fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Box<dyn CausalLm>, LoadError> {
    let config = HybridConfig::new(hf)?;
    let rope = RopeConfig::partial_from_config(hf)?;
    let layers = w.at("model.layers");
    // As published: experts one by one, norms as what is added to one.
    let is_published = (0..config.num_hidden_layers)
        .any(|layer| !layers.layer(layer).at("mlp.experts.0").is_empty());
    let form = Form { layout: Layout::ByHead, norms_above_one: is_published, renormalize: false };
    let (model, head) = (w.at("model"), w.at("lm_head"));
    Ok(Box::new(HybridForCausalLm::load(config, form, (&rope, hf.context_length()), &model, head)?))
}

/// How a family, or a checkpoint, has what all have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) layout: Layout,
    /// Norms are stored as what is added to one.
    pub(crate) norms_above_one: bool,
    /// Where config.json does not say whether weights of experts sum to one.
    pub(crate) renormalize: bool,
}

pub(crate) struct HybridForCausalLm {
    config: HybridConfig,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: MlpOrExperts,
}

enum Mixer {
    Attention(Box<Attention>),
    Recurrent(Box<GatedDeltaNet>),
}

struct Attention {
    /// For each head its query and its gates; then keys and values.
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
}

enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SharedExpertMoe>),
}

impl CausalLm for HybridForCausalLm {
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
        let layers = 0..self.config.num_hidden_layers;
        let attending = layers.filter(|&layer| self.config.has_attention(layer));
        attending.map(|layer| self.config.attention_shape(layer)).collect()
    }

    fn state_layout(&self) -> Vec<StateShape> {
        let layers = 0..self.config.num_hidden_layers;
        let recurrent = layers.filter(|&layer| !self.config.has_attention(layer));
        let dims = self.config.delta_dims();
        recurrent.map(|layer| dims.state_shape(self.config.place(layer))).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    /// What a token's experts have together: the widest of a step.
    fn intermediate_size(&self) -> usize {
        let moe = &self.config.moe;
        (moe.num_experts_per_tok * moe.moe_intermediate_size)
            .max(moe.shared_expert_intermediate_size)
            .max(self.config.intermediate_size)
    }

    fn context_length(&self) -> usize {
        self.context_length
    }
}

impl DecoderLayer {
    fn forward(
        &self,
        hidden: &Array,
        delta: Option<&Array>,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<(Array, Array)> {
        let (hidden, normed) = self.input_layernorm.forward_residual(hidden, delta)?;
        let mixed = match &self.mixer {
            Mixer::Attention(attention) => attention.forward(&normed, rope, batch)?,
            Mixer::Recurrent(net) => net.forward(&normed, batch)?,
        };
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&mixed))?;
        Ok((hidden, self.mlp.forward(&normed)?))
    }
}

impl Attention {
    fn forward(
        &self,
        x: &Array,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let AttentionShape { num_heads, head_dim, .. } = *self.attn.shape();
        let (tokens, q_dim) = (x.dim(0), num_heads * head_dim);
        let parts = self.qkv_proj.forward(x)?.split_at(&[2 * q_dim], -1)?;
        let heads = parts[0].reshape(&[tokens, num_heads, 2 * head_dim])?.split(2, -1)?;
        let q = heads[0].reshape(&[tokens, q_dim])?;
        let gates = heads[1].reshape(&[tokens, q_dim])?.sigmoid()?;
        let qkv = Array::concatenate(&[&q, &parts[1]], -1)?;
        let attn = self.attn.forward_rope(&qkv, rope, batch)?;
        self.o_proj.forward(&attn.reshape(&[tokens, q_dim])?.multiply(&gates)?)
    }

    fn load(
        config: &HybridConfig,
        layer: usize,
        form: Form,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let shape = config.attention_shape(layer);
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let norm = |name| {
            let eps = config.rms_norm_eps;
            RmsNorm::load_either(w.at(name), shape.head_dim, eps, form.norms_above_one)
        };
        let norms = HeadNorms { q: norm("q_norm")?, k: norm("k_norm")? };
        let parts = [(w.at("q_proj"), 2 * q), (w.at("k_proj"), kv), (w.at("v_proj"), kv)];
        Ok(Self {
            qkv_proj: MergedLinear::load(&parts, hidden, bias)?,
            o_proj: Linear::load(w.at("o_proj"), q, hidden, bias)?,
            attn: RadixAttention::new(shape).with_norms(norms),
        })
    }
}

impl MlpOrExperts {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        match self {
            Self::Mlp(mlp) => mlp.forward(hidden),
            Self::Experts(block) => block.forward(hidden),
        }
    }

    fn load(
        config: &HybridConfig,
        layer: usize,
        form: Form,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, act, moe) = (config.hidden_size, config.hidden_act, &config.moe);
        if !config.has_experts(layer) {
            let sizes = [hidden, config.intermediate_size];
            return GatedMlp::load(w, sizes, act, false).map(Self::Mlp);
        }
        let num_experts = moe.num_experts;
        let dims = MoeDims { num_experts, hidden, inner: moe.moe_intermediate_size };
        let renormalize = moe.norm_topk_prob.unwrap_or(form.renormalize);
        let top_k = TopK { top_k: moe.num_experts_per_tok, renormalize };
        let shared = moe.shared_expert_intermediate_size;
        let block = SharedExpertMoe::load(w, dims, shared, top_k, act)?;
        Ok(Self::Experts(Box::new(block)))
    }
}

impl HybridForCausalLm {
    /// `w` has the layers, `head` the matrix of the vocabulary.
    pub(crate) fn load(
        config: HybridConfig,
        form: Form,
        (rope, context_length): (&RopeConfig, usize),
        w: &Weights,
        head: Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        let rope = Rope::new(config.head_dim(), rope)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| DecoderLayer::load(&config, layer, form, &w.at("layers").layer(layer)))
            .collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(w.at("embed_tokens"), vocab, hidden, tied)?;
        let eps = config.rms_norm_eps;
        let norm = RmsNorm::load_either(w.at("norm"), hidden, eps, form.norms_above_one)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(head, hidden, vocab)?,
        };
        Ok(Self { config, context_length, embed_tokens, rope, layers, norm, lm_head })
    }
}

impl DecoderLayer {
    fn load(
        config: &HybridConfig,
        layer: usize,
        form: Form,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let norm = |name| {
            let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
            RmsNorm::load_either(w.at(name), hidden, eps, form.norms_above_one)
        };
        let mixer = if config.has_attention(layer) {
            let attention = Attention::load(config, layer, form, &w.at("self_attn"))?;
            Mixer::Attention(Box::new(attention))
        } else {
            let (dims, place) = (config.delta_dims(), config.place(layer));
            let net = GatedDeltaNet::load(dims, place, form.layout, &w.at("linear_attn"))?;
            Mixer::Recurrent(Box::new(net))
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            mixer,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: MlpOrExperts::load(config, layer, form, &w.at("mlp"))?,
        })
    }
}

impl HybridConfig {
    fn attention_shape(&self, layer: usize) -> AttentionShape {
        AttentionShape {
            layer_id: self.place(layer),
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            ..AttentionShape::default()
        }
    }
}
