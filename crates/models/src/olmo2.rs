//! OLMo 2: norms come after each half of a layer, and those of q and k span all heads.
//! OLMo 3 has the same layers, some of them with a window.
//!
//! Upstream: `sglang/srt/models/olmo2.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm,
    Rope, RopeConfig, RopePositions, RopeScaling, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{check_heads, check_sizes, default_act, is_tied, left_over, pack_all},
    row_norms::RowNorms,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Olmo2ForCausalLM"],
    model_types: &["olmo2"],
    models: "OLMo 2",
    left_over,
    quant: pack_all,
    load: |config, weights| Ok(Box::new(Olmo2ForCausalLm::load(config, weights, Vec::new())?)),
};

#[derive(Deserialize)]
struct Olmo2Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
    rms_norm_eps: f32,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    /// Of each layer, OLMo 3's; empty: none.
    #[serde(skip)]
    windows: Vec<Option<usize>>,
}

pub(crate) struct Olmo2ForCausalLm {
    config: Olmo2Config,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    /// Of layers with a window, which never got longer.
    window_rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

struct Attention {
    qkv_proj: MergedLinear,
    norms: RowNorms,
    o_proj: Linear,
    attn: RadixAttention,
}

impl CausalLm for Olmo2ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let window_rope = (&self.window_rope, &self.window_rope.at(&batch.positions)?);
        let mut hidden = self.embed_tokens.forward(&batch.input_ids)?;
        for layer in &self.layers {
            let has_window = layer.self_attn.attn.shape().sliding_window.is_some();
            let rope = if has_window { window_rope } else { rope };
            hidden = layer.forward(&hidden, rope, batch)?;
        }
        let hidden = batch.select_sampled(&hidden)?;
        self.lm_head.forward(&self.norm.forward(&hidden)?)
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

impl DecoderLayer {
    fn forward(
        &self,
        hidden: &Array,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let attn = self.self_attn.forward(hidden, rope, batch)?;
        let hidden = hidden.add(&self.post_attention_layernorm.forward(&attn)?)?;
        let mlp = self.mlp.forward(&hidden)?;
        hidden.add(&self.post_feedforward_layernorm.forward(&mlp)?)
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

impl Olmo2ForCausalLm {
    /// With the window of each layer; empty: none has one.
    pub(crate) fn load(
        hf: &HfConfig,
        w: &Weights,
        windows: Vec<Option<usize>>,
    ) -> Result<Self, LoadError> {
        let config = Olmo2Config::new(hf, windows)?;
        let (vocab, hidden, tied) = (config.vocab_size, config.hidden_size, is_tied(hf)?);
        let stretched = RopeConfig::from_config(hf)?;
        let rope = Rope::new(config.head_dim(), &stretched)?;
        let plain = RopeConfig { scaling: RopeScaling::Default, ..stretched };
        let model = w.at("model");
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(w.at("lm_head"), hidden, vocab)?,
        };
        Ok(Self {
            context_length: hf.context_length(),
            embed_tokens,
            rope,
            window_rope: Rope::new(config.head_dim(), &plain)?,
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(config: &Olmo2Config, layer_id: usize, w: &Weights) -> Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        let mlp = [config.hidden_size, config.intermediate_size];
        Ok(Self {
            self_attn: Attention::load(config, layer_id, &w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load(&w.at("mlp"), mlp, config.hidden_act, config.mlp_bias)?,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
        })
    }
}

impl Attention {
    fn load(config: &Olmo2Config, layer_id: usize, w: &Weights) -> Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let shape = config.attention_shape(layer_id);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let qkv = [(w.at("q_proj"), q_dim), (w.at("k_proj"), kv_dim), (w.at("v_proj"), kv_dim)];
        Ok(Self {
            qkv_proj: MergedLinear::load(&qkv, hidden, bias)?,
            norms: RowNorms::load(w, &shape, config.rms_norm_eps)?,
            o_proj: Linear::load(w.at("o_proj"), q_dim, hidden, bias)?,
            attn: RadixAttention::new(shape),
        })
    }
}

impl Olmo2Config {
    fn new(hf: &HfConfig, windows: Vec<Option<usize>>) -> Result<Self, LoadError> {
        let config = Self { windows, ..hf.parse()? };
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
        ])?;
        let heads = [config.num_attention_heads, config.num_kv_heads()];
        check_heads(config.hidden_size, heads, config.head_dim)?;
        Ok(config)
    }

    fn num_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_kv_heads(),
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            sliding_window: self.windows.get(layer_id).copied().flatten(),
            ..AttentionShape::default()
        }
    }
}
