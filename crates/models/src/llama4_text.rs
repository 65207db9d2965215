//! Llama 4: layers whose attention stays inside of chunks, and between them layers that
//! see everything and have no positions; experts that take their inputs scaled, beside one
//! that takes every token.
//!
//! Upstream: `sglang/srt/models/llama4.py`. Where mlx-lm has less in `llama4_text.py` than in
//! `llama4.py` (chunks, temperatures, experts, long rope), and where its epsilon of the
//! heads' norms is not the config's, this follows upstream and transformers.

use attention::{AttentionShape, ForwardBatch, HeadNorms, RadixAttention};
use mlx::{Array, Dtype, Result};
use nn::{
    Embedding, FusedMoe, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear, MoeDims,
    RmsNorm, Rope, RopePositions, TopK, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over, pack_all},
    residual::forward_layers,
};

mod config;

pub(crate) use config::Llama4Config;
use config::Temperature;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Llama4ForCausalLM"],
    model_types: &["llama4_text"],
    models: "MobileLLM-R1, Llama 4's text side alone",
    left_over,
    quant: pack_all,
    load,
};

/// The head is `output` in the MLX format.
fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Box<dyn CausalLm>, LoadError> {
    let output = w.at("output");
    let head = if output.is_empty() { w.at("lm_head").told_as(&output) } else { output };
    Ok(Box::new(Llama4ForCausalLm::load(hf, &w.at("model"), head)?))
}

pub(crate) struct Llama4ForCausalLm {
    config: Llama4Config,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    /// Of layers without positions.
    nope: Rope,
    temperature: Option<Temperature>,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    has_positions: bool,
    input_layernorm: RmsNorm,
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
    post_attention_layernorm: RmsNorm,
    feed_forward: MlpOrExperts,
}

enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<Experts>),
}

struct Experts {
    router: Linear,
    experts: FusedMoe,
    shared_expert: GatedMlp,
}

/// What layers need to know of a step's positions.
struct Positions<'a> {
    rope: (&'a Rope, &'a RopePositions),
    nope: (&'a Rope, &'a RopePositions),
    /// Factors on the queries of layers without positions, `[num_tokens, 1]` f32.
    growth: Option<Array>,
}

impl CausalLm for Llama4ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let growth = self.temperature.map(|temperature| temperature.at(&batch.positions));
        let at = Positions {
            rope: (&self.rope, &self.rope.at(&batch.positions)?),
            nope: (&self.nope, &self.nope.at(&batch.positions)?),
            growth: growth.transpose()?,
        };
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        let normed =
            forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
                layer.forward(hidden, delta, &at, batch)
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
        self.config.intermediate_size.max(self.config.intermediate_size_mlp)
    }

    fn context_length(&self) -> usize {
        self.context_length
    }
}

impl Temperature {
    /// Factors on the queries at `positions`, `[num_tokens, 1]` f32.
    fn at(self, positions: &Array) -> Result<Array> {
        let one = Array::scalar(1_i32)?;
        let step = Array::scalar(self.floor_scale as i32)?;
        let steps = positions.add(&one)?.floor_divide(&step)?.astype(Dtype::Float32)?;
        let growth = steps.add_scalar(1.0)?.log()?.mul_scalar(self.attn_scale)?;
        growth.add_scalar(1.0)?.expand_dims(1)
    }
}

impl DecoderLayer {
    /// The residual stream, and what is to be added to it.
    fn forward(
        &self,
        hidden: &Array,
        delta: Option<&Array>,
        at: &Positions<'_>,
        batch: &ForwardBatch,
    ) -> Result<(Array, Array)> {
        let (hidden, normed) = self.input_layernorm.forward_residual(hidden, delta)?;
        let qkv = self.qkv_proj.forward(&normed)?;
        let attn = match (self.has_positions, &at.growth) {
            (true, _) => self.attn.forward_rope(&qkv, at.rope, batch)?,
            (false, None) => self.attn.forward_rope(&qkv, at.nope, batch)?,
            (false, Some(growth)) => {
                self.attn.forward_rope(&self.grown(&qkv, growth)?, at.nope, batch)?
            }
        };
        let attn = self.o_proj.forward(&attn)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.feed_forward.forward(&normed)?))
    }

    /// Merged rows with their queries multiplied.
    fn grown(&self, qkv: &Array, growth: &Array) -> Result<Array> {
        let AttentionShape { num_heads, head_dim, .. } = *self.attn.shape();
        let parts = qkv.split_at(&[num_heads * head_dim], 1)?;
        let queries = parts[0].multiply(growth)?.astype(qkv.dtype())?;
        Array::concatenate(&[&queries, &parts[1]], 1)
    }
}

impl MlpOrExperts {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        match self {
            Self::Mlp(mlp) => mlp.forward(hidden),
            Self::Experts(experts) => experts.forward(hidden),
        }
    }
}

impl Experts {
    /// A token's expert takes it as far as the router likes the two together.
    fn forward(&self, hidden: &Array) -> Result<Array> {
        let logits = self.router.forward(hidden)?;
        let best = logits.max(&[-1], true)?.astype(Dtype::Float32)?;
        let scaled = hidden.multiply(&best.sigmoid()?.astype(hidden.dtype())?)?;
        self.experts.forward(&scaled, &logits)?.add(&self.shared_expert.forward(hidden)?)
    }
}

impl Llama4ForCausalLm {
    /// From the tensors of `model` and of `head`, if the head is not tied.
    pub(crate) fn load(
        hf: &HfConfig,
        model: &Weights,
        head: Weights,
    ) -> std::result::Result<Self, LoadError> {
        let config = Llama4Config::new(hf)?;
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &config.rope(hf)?)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| DecoderLayer::load(&config, layer, &model.at("layers").layer(layer)))
            .collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(head, hidden, vocab)?,
        };
        Ok(Self {
            context_length: hf.context_length(),
            embed_tokens,
            rope,
            nope: Rope::still(config.head_dim())?,
            temperature: config.temperature(),
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(
        config: &Llama4Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias, eps) = (config.hidden_size, config.attention_bias, config.rms_norm_eps);
        let shape = config.attention_shape(layer);
        let (q_dim, kv_dim) =
            (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let at = w.at("self_attn");
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        // Without weights. Upstream norms after heads rotate, which changes no length.
        let head_norm = || {
            let ones = Array::ones(&[shape.head_dim], w.options().compute_dtype)?;
            Ok::<_, LoadError>(RmsNorm::with_weight(ones, eps))
        };
        let attn = match config.norms_heads(layer) {
            true => {
                let norms = HeadNorms { q: head_norm()?, k: head_norm()? };
                RadixAttention::new(shape).with_norms(norms)
            }
            false => RadixAttention::new(shape),
        };
        let norm = |name| RmsNorm::load(w.at(name), hidden, eps);
        Ok(Self {
            has_positions: config.has_positions(layer),
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&qkv, hidden, bias)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, bias)?,
            attn,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            feed_forward: MlpOrExperts::load(config, layer, &w.at("feed_forward"))?,
        })
    }
}

impl MlpOrExperts {
    fn load(
        config: &Llama4Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        if config.has_experts(layer) {
            return Experts::load(config, w).map(Box::new).map(Self::Experts);
        }
        let sizes = [config.hidden_size, config.intermediate_size_mlp];
        GatedMlp::load(w, sizes, config.hidden_act, false).map(Self::Mlp)
    }
}

impl Experts {
    fn load(config: &Llama4Config, w: &Weights) -> std::result::Result<Self, LoadError> {
        let (hidden, inner, act) =
            (config.hidden_size, config.intermediate_size, config.hidden_act);
        let num_experts = config.num_local_experts;
        Ok(Self {
            router: Linear::load(w.at("router"), hidden, num_experts, false)?,
            experts: FusedMoe::load_inputs_first(
                &w.at("experts"),
                ["gate_proj", "up_proj", "down_proj"],
                MoeDims { num_experts, hidden, inner },
                // What comes out has weight one.
                TopK { top_k: 1, renormalize: true },
                act,
            )?,
            shared_expert: GatedMlp::load(&w.at("shared_expert"), [hidden, inner], act, false)?,
        })
    }
}
