//! SmolLM3: Llama's graph, in which every fourth layer has no positions.
//!
//! Upstream: none; `mlx_lm/models/smollm3.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Embedding, GatedMlp, HfConfig, Linear, LmHead, LoadError, MergedLinear, RmsNorm, Rope,
    RopeConfig, RopePositions, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{check_length, config_error, left_over, pack_all},
    llama::LlamaConfig,
    residual::forward_layers,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["SmolLM3ForCausalLM"],
    model_types: &["smollm3"],
    models: "SmolLM3-3B",
    left_over,
    quant: pack_all,
    load: |config, weights| Ok(Box::new(SmolLm3ForCausalLm::load(config, weights)?)),
};

#[derive(Deserialize)]
struct Positions {
    /// 0 where a layer has none.
    no_rope_layers: Option<Vec<u8>>,
    /// Otherwise every so many layers have none.
    #[serde(default = "four")]
    no_rope_layer_interval: usize,
}

struct SmolLm3ForCausalLm {
    config: LlamaConfig,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    /// Of layers without positions.
    nope: Rope,
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
    mlp: GatedMlp,
}

impl CausalLm for SmolLm3ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let nope = (&self.nope, &self.nope.at(&batch.positions)?);
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        let normed =
            forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
                let rope = if layer.has_positions { rope } else { nope };
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

impl SmolLm3ForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = LlamaConfig::new(hf)?;
        let has_positions = hf.parse::<Positions>()?.of_layers(config.num_hidden_layers)?;
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        let rope = Rope::new(config.head_dim(), &RopeConfig::from_config(hf)?)?;
        let model = w.at("model");
        let layer = |(layer_id, has_positions)| {
            DecoderLayer::load(
                &config,
                layer_id,
                has_positions,
                &model.at("layers").layer(layer_id),
            )
        };
        let layers = (0..).zip(has_positions).map(layer).collect::<Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(w.at("lm_head"), hidden, vocab)?,
        };
        Ok(Self {
            context_length: hf.context_length(),
            embed_tokens,
            rope,
            nope: Rope::still(config.head_dim())?,
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(
        config: &LlamaConfig,
        layer_id: usize,
        has_positions: bool,
        w: &Weights,
    ) -> Result<Self, LoadError> {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let norm = |name| RmsNorm::load(w.at(name), hidden, config.rms_norm_eps);
        let shape = config.attention_shape(layer_id);
        let q_dim = shape.num_heads * shape.head_dim;
        let kv_dim = shape.num_kv_heads * shape.head_dim;
        let at = w.at("self_attn");
        let qkv = [(at.at("q_proj"), q_dim), (at.at("k_proj"), kv_dim), (at.at("v_proj"), kv_dim)];
        Ok(Self {
            has_positions,
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: MergedLinear::load(&qkv, hidden, bias)?,
            o_proj: Linear::load(at.at("o_proj"), q_dim, hidden, bias)?,
            attn: RadixAttention::new(shape),
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: GatedMlp::load(
                &w.at("mlp"),
                [hidden, config.intermediate_size],
                config.hidden_act,
                config.mlp_bias,
            )?,
        })
    }
}

impl Positions {
    /// Whether each layer has positions.
    fn of_layers(&self, num_layers: usize) -> Result<Vec<bool>, LoadError> {
        if let Some(layers) = &self.no_rope_layers {
            check_length("no_rope_layers", layers.len(), num_layers)?;
            return Ok(layers.iter().map(|&layer| layer != 0).collect());
        }
        let interval = self.no_rope_layer_interval;
        if interval == 0 {
            return Err(config_error("no_rope_layer_interval", "must be positive".to_owned()));
        }
        Ok((1..=num_layers).map(|nth| !nth.is_multiple_of(interval)).collect())
    }
}

fn four() -> usize {
    4
}
