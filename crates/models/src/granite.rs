//! Granite, dense: Llama's graph with factors on embeddings, scores, what layers add,
//! and logits.
//!
//! Upstream: `sglang/srt/models/granite.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result, quantized::QuantMode};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear,
    QuantChoice, QuantSpec, RmsNorm, Rope, RopeConfig, RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{check_heads, check_sizes, config_error, default_act, is_tied, left_over},
    residual::forward_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["GraniteForCausalLM"],
    model_types: &["granite"],
    models: "Granite 3.x, dense",
    left_over,
    quant,
    load: |config, weights| Ok(Box::new(GraniteForCausalLm::load(config, weights)?)),
};

/// Weights of these are so small that few bits lose them.
fn quant(path: &str) -> QuantChoice {
    let is_small = path.ends_with("self_attn.o_proj") || path.ends_with("mlp.down_proj");
    if is_small || path == "lm_head" {
        return QuantChoice::Like(QuantSpec { group_size: 64, bits: 8, mode: QuantMode::Affine });
    }
    QuantChoice::Default
}

#[derive(Deserialize)]
struct GraniteConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
    rms_norm_eps: f32,
    attention_bias: bool,
    mlp_bias: bool,
    embedding_multiplier: f32,
    attention_multiplier: f32,
    residual_multiplier: f32,
    logits_scaling: f32,
}

struct GraniteForCausalLm {
    config: GraniteConfig,
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
    mlp: GatedMlp,
    residual_multiplier: f32,
}

impl CausalLm for GraniteForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let embedded = self.embed_tokens.forward(&batch.input_ids)?;
        let hidden = embedded.mul_scalar(self.config.embedding_multiplier)?;
        let normed =
            forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
                layer.forward(hidden, delta, rope, batch)
            })?;
        self.lm_head.forward(&normed)?.mul_scalar(self.config.logits_scaling.recip())
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
    /// The residual stream, and what is to be added to it.
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
        let attn = attn.mul_scalar(self.residual_multiplier)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        let mlp = self.mlp.forward(&normed)?.mul_scalar(self.residual_multiplier)?;
        Ok((hidden, mlp))
    }
}

impl GraniteForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = GraniteConfig::new(hf)?;
        let (vocab, hidden, tied) = (config.vocab_size, config.hidden_size, is_tied(hf)?);
        let rope = Rope::new(config.head_dim(), &RopeConfig::from_config(hf)?)?;
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
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(config: &GraniteConfig, layer_id: usize, w: &Weights) -> Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let norm = |name| RmsNorm::load(w.at(name), hidden, config.rms_norm_eps);
        let shape = config.attention_shape(layer_id);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let at = w.at("self_attn");
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        let mlp = [hidden, config.intermediate_size];
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&qkv, hidden, bias)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, bias)?,
            attn: RadixAttention::new(shape),
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load(&w.at("mlp"), mlp, config.hidden_act, config.mlp_bias)?,
            residual_multiplier: config.residual_multiplier,
        })
    }
}

impl GraniteConfig {
    fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let config: Self = hf.parse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
        ])?;
        check_heads(
            config.hidden_size,
            [config.num_attention_heads, config.num_key_value_heads],
            None,
        )?;
        if config.logits_scaling == 0.0 {
            return Err(config_error("logits_scaling", "must not be zero".to_owned()));
        }
        Ok(config)
    }

    fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim(),
            scale: self.attention_multiplier,
            ..AttentionShape::default()
        }
    }
}
