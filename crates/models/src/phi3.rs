//! Phi-3 and Phi-4: Llama's graph with q, k and v in one matrix, gates and values in
//! another. As upstream and in mlx-lm, `sliding_window` is not followed.
//!
//! Upstream: `sglang/srt/models/phi3.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, RmsNorm, Rope,
    RopeConfig, RopePositions, RopeScaling, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{FUSED_NAMES, check_heads, check_sizes, default_act, is_tied, left_over, pack_all},
    residual::forward_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Phi3ForCausalLM"],
    model_types: &["phi3"],
    models: "Phi-3 mini and medium, Phi-4, Phi-4 mini",
    left_over,
    quant: pack_all,
    load: |config, weights| Ok(Box::new(Phi3ForCausalLm::load(config, weights)?)),
};

#[derive(Deserialize)]
struct Phi3Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    vocab_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
    rms_norm_eps: f32,
}

struct Phi3ForCausalLm {
    config: Phi3Config,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    qkv_proj: Linear,
    o_proj: Linear,
    attn: RadixAttention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl CausalLm for Phi3ForCausalLm {
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
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.mlp.forward(&normed)?))
    }
}

impl Phi3ForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = Phi3Config::new(hf)?;
        let (vocab, hidden, tied) = (config.vocab_size, config.hidden_size, is_tied(hf)?);
        let rope = RopeConfig::partial_from_config(hf)?;
        if !matches!(
            rope.scaling,
            RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Long(_)
        ) {
            let value = format!("{:?}", rope.scaling);
            return Err(LoadError::Unsupported { what: "rope_scaling of Phi-3", value });
        }
        let rope = Rope::new(config.head_dim(), &rope)?;
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
    fn load(config: &Phi3Config, layer_id: usize, w: &Weights) -> Result<Self, LoadError> {
        let hidden = config.hidden_size;
        let norm = |name| RmsNorm::load(w.at(name), hidden, config.rms_norm_eps);
        let shape = config.attention_shape(layer_id);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let at = w.at("self_attn");
        let mlp = [hidden, config.intermediate_size];
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: Linear::load(at.at("qkv_proj"), hidden, q_dim + 2 * kv_dim, false)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, false)?,
            attn: RadixAttention::new(shape),
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load_fused(&w.at("mlp"), FUSED_NAMES, mlp, config.hidden_act)?,
        })
    }
}

impl Phi3Config {
    fn new(hf: &HfConfig) -> Result<Self, LoadError> {
        let config: Self = hf.parse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("vocab_size", config.vocab_size),
        ])?;
        check_heads(config.hidden_size, [config.num_attention_heads, config.num_kv_heads()], None)?;
        Ok(config)
    }

    fn num_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
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
