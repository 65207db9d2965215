//! LFM2: most layers are short gated convolutions, a few attend; the head is the
//! embedding. LFM2 with experts has the same layers, most of them with experts.
//!
//! Upstream: `mlx_lm/models/lfm2.py`, `sglang/srt/models/lfm2.py`.

use attention::{AttentionShape, CausalConv, ForwardBatch, HeadNorms, RadixAttention, StateShape};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, LeftOver, Linear, LmHead, LoadError, MergedLinear,
    RmsNorm, Rope, RopeConfig, RopePositions, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{pack_all, with_default_theta},
    residual::forward_layers,
    sparse_moe::W_NAMES,
};

mod config;

pub(crate) use config::Lfm2Config;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Lfm2ForCausalLM"],
    model_types: &["lfm2"],
    models: "LFM2 350M, 700M, 1.2B, 2.6B",
    left_over,
    quant: pack_all,
    load: |hf, weights| Lfm2ForCausalLm::<GatedMlp>::load(Lfm2Config::new(hf)?, hf, weights),
};

/// Some checkpoints hold the head a second time.
pub(crate) fn left_over(_: &HfConfig) -> Vec<LeftOver<'static>> {
    vec![LeftOver::Module("lm_head")]
}

const ROPE_THETA: f32 = 1_000_000.0;

/// Layers whose second half is `M`: an MLP, or experts.
pub(crate) struct Lfm2ForCausalLm<M> {
    config: Lfm2Config,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer<M>>,
    embedding_norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer<M> {
    operator_norm: RmsNorm,
    operator: Operator,
    ffn_norm: RmsNorm,
    feed_forward: M,
}

/// The second half of a layer.
pub(crate) trait Feedforward: Sized {
    /// Takes the half of layer `layer`.
    fn load(config: &Lfm2Config, layer: usize, w: &Weights)
    -> std::result::Result<Self, LoadError>;

    /// `[num_tokens, hidden]` to the same.
    fn forward(&self, hidden: &Array) -> Result<Array>;

    /// Inner width of the widest of a step.
    fn widest(config: &Lfm2Config) -> usize;
}

enum Operator {
    Attention(Box<Attention>),
    Conv(Box<ShortConv>),
}

struct Attention {
    qkv_proj: MergedLinear,
    out_proj: Linear,
    attn: RadixAttention,
}

/// A convolution between two gates.
struct ShortConv {
    /// Gates before it, gates after it, inputs.
    in_proj: Linear,
    conv: CausalConv,
    out_proj: Linear,
}

impl<M: Feedforward> CausalLm for Lfm2ForCausalLm<M> {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        let normed = forward_layers(
            hidden,
            &self.layers,
            &self.embedding_norm,
            batch,
            |layer, hidden, delta| layer.forward(hidden, delta, rope, batch),
        )?;
        self.lm_head.forward(&normed)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        let layers = 0..self.config.num_hidden_layers;
        let attending = layers.filter(|&layer| self.config.has_attention(layer));
        attending.map(|layer| self.config.attention_shape(layer)).collect()
    }

    fn state_layout(&self) -> Vec<StateShape> {
        let layers = 0..self.config.num_hidden_layers;
        let convs = layers.filter(|&layer| !self.config.has_attention(layer));
        let (channels, taps) = (self.config.hidden_size, self.config.taps);
        let shape =
            |layer| StateShape { state_id: self.config.place(layer), channels, taps, scan: None };
        convs.map(shape).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn intermediate_size(&self) -> usize {
        M::widest(&self.config)
    }

    fn context_length(&self) -> usize {
        self.context_length
    }
}

impl<M: Feedforward> DecoderLayer<M> {
    fn forward(
        &self,
        hidden: &Array,
        delta: Option<&Array>,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<(Array, Array)> {
        let (hidden, normed) = self.operator_norm.forward_residual(hidden, delta)?;
        let mixed = match &self.operator {
            Operator::Conv(conv) => conv.forward(&normed, batch)?,
            Operator::Attention(attention) => {
                let qkv = attention.qkv_proj.forward(&normed)?;
                let attn = attention.attn.forward_rope(&qkv, rope, batch)?;
                attention.out_proj.forward(&attn)?
            }
        };
        let (hidden, normed) = self.ffn_norm.forward_residual(&hidden, Some(&mixed))?;
        Ok((hidden, self.feed_forward.forward(&normed)?))
    }

    fn load(
        config: &Lfm2Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.norm_eps);
        let operator = match config.has_attention(layer) {
            true => {
                let attention = Attention::load(config, layer, &w.at("self_attn"))?;
                Operator::Attention(Box::new(attention))
            }
            false => Operator::Conv(Box::new(ShortConv::load(config, layer, &w.at("conv"))?)),
        };
        Ok(Self {
            operator_norm: norm("operator_norm")?,
            operator,
            ffn_norm: norm("ffn_norm")?,
            feed_forward: M::load(config, layer, &w.at("feed_forward"))?,
        })
    }
}

impl Feedforward for GatedMlp {
    fn load(config: &Lfm2Config, _: usize, w: &Weights) -> std::result::Result<Self, LoadError> {
        let sizes = [config.hidden_size, config.inner()];
        Self::load_named(w, W_NAMES, sizes, Activation::Silu, false)
    }

    fn forward(&self, hidden: &Array) -> Result<Array> {
        self.forward(hidden)
    }

    fn widest(config: &Lfm2Config) -> usize {
        config.inner()
    }
}

impl ShortConv {
    fn forward(&self, x: &Array, batch: &ForwardBatch) -> Result<Array> {
        let parts = self.in_proj.forward(x)?.split(3, -1)?;
        let conv = self.conv.forward(&parts[0].multiply(&parts[2])?, batch)?;
        self.out_proj.forward(&parts[1].multiply(&conv)?)
    }

    fn load(
        config: &Lfm2Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.conv_bias);
        let conv = w.at("conv");
        let weight = conv.take_conv(hidden, config.taps)?;
        let conv_bias = bias.then(|| conv.take("bias", &[hidden])).transpose()?;
        Ok(Self {
            in_proj: Linear::load(w.at("in_proj"), hidden, 3 * hidden, bias)?,
            conv: CausalConv::new(config.place(layer), weight, conv_bias, false),
            out_proj: Linear::load(w.at("out_proj"), hidden, hidden, bias)?,
        })
    }
}

impl Attention {
    fn load(
        config: &Lfm2Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let shape = config.attention_shape(layer);
        let hidden = config.hidden_size;
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let norm = |name| RmsNorm::load(w.at(name), shape.head_dim, config.norm_eps);
        let norms = HeadNorms { q: norm("q_layernorm")?, k: norm("k_layernorm")? };
        let parts = [(w.at("q_proj"), q), (w.at("k_proj"), kv), (w.at("v_proj"), kv)];
        Ok(Self {
            qkv_proj: MergedLinear::load(&parts, hidden, false)?,
            out_proj: Linear::load(w.at("out_proj"), q, hidden, false)?,
            attn: RadixAttention::new(shape).with_norms(norms),
        })
    }
}

impl<M: Feedforward + 'static> Lfm2ForCausalLm<M> {
    pub(crate) fn load(
        config: Lfm2Config,
        hf: &HfConfig,
        w: &Weights,
    ) -> std::result::Result<Box<dyn CausalLm>, LoadError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let rope = with_default_theta(RopeConfig::from_config(hf)?, hf, ROPE_THETA);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &rope)?;
        let model = w.at("model");
        let layers = (0..config.num_hidden_layers)
            .map(|layer| DecoderLayer::load(&config, layer, &model.at("layers").layer(layer)))
            .collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, true)?;
        let lm_head = embed_tokens.as_head()?;
        let embedding_norm = RmsNorm::load(model.at("embedding_norm"), hidden, config.norm_eps)?;
        let context_length = hf.context_length();
        let model =
            Self { config, context_length, embed_tokens, rope, layers, embedding_norm, lm_head };
        Ok(Box::new(model))
    }
}

impl Lfm2Config {
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
