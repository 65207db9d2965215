//! Nemotron-H: each layer is one of Mamba 2, attention without positions, an MLP or
//! experts, by a pattern.
//!
//! Upstream: `sglang/srt/models/nemotron_h.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention, StateShape};
use mlx::{Array, Result};
use nn::{
    Embedding, HfConfig, LeftOver, Linear, LmHead, LoadError, MergedLinear, RmsNorm, Rope,
    RopePositions, Weights,
};

use crate::{CausalLm, ModelEntry, config::pack_all, mamba2::Mamba2, residual::forward_layers};

mod config;
mod mlp;

use config::{LayerType, NemotronHConfig};
use mlp::{Mlp, SparseMoeBlock};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["NemotronHForCausalLM"],
    model_types: &["nemotron_h"],
    models: "Nemotron-H, Nemotron Nano 2, Nemotron 3 Nano and Super",
    // What predicts further tokens at once is not used.
    left_over: |_| vec![LeftOver::Module("mtp")],
    quant: pack_all,
    load: |hf, weights| Ok(Box::new(NemotronHForCausalLm::load(hf, weights)?)),
};

struct NemotronHForCausalLm {
    config: NemotronHConfig,
    context_length: usize,
    embeddings: Embedding,
    /// Attention has no positions.
    nope: Rope,
    layers: Vec<DecoderLayer>,
    norm_f: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    norm: RmsNorm,
    mixer: Mixer,
}

enum Mixer {
    Mamba(Box<Mamba2>),
    Attention(Box<Attention>),
    Mlp(Mlp),
    Experts(Box<SparseMoeBlock>),
}

struct Attention {
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
}

impl CausalLm for NemotronHForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let nope = (&self.nope, &self.nope.at(&batch.positions)?);
        let hidden = self.embeddings.forward(&batch.input_ids)?;
        let normed =
            forward_layers(hidden, &self.layers, &self.norm_f, batch, |layer, hidden, delta| {
                layer.forward(hidden, delta, nope, batch)
            })?;
        self.lm_head.forward(&normed)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        let attending = self.config.layers_of(LayerType::Attention);
        attending.map(|layer| self.config.attention_shape(layer)).collect()
    }

    fn state_layout(&self) -> Vec<StateShape> {
        let (dims, recurrent) = (self.config.mamba_dims(), self.config.layers_of(LayerType::Mamba));
        recurrent.map(|layer| dims.state_shape(self.config.place(layer))).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn intermediate_size(&self) -> usize {
        let mamba = self.config.mamba_dims().projected();
        self.config.intermediate_size.max(self.config.moe.widest()).max(mamba)
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
        nope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<(Array, Array)> {
        let (hidden, normed) = self.norm.forward_residual(hidden, delta)?;
        let mixed = match &self.mixer {
            Mixer::Mamba(mamba) => mamba.forward(&normed, batch)?,
            Mixer::Attention(attention) => {
                let qkv = attention.qkv_proj.forward(&normed)?;
                attention.o_proj.forward(&attention.attn.forward_rope(&qkv, nope, batch)?)?
            }
            Mixer::Mlp(mlp) => mlp.forward(&normed)?,
            Mixer::Experts(block) => block.forward(&normed)?,
        };
        Ok((hidden, mixed))
    }

    fn load(
        config: &NemotronHConfig,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (place, at) = (config.place(layer), w.at("mixer"));
        let mixer = match config.layers[layer] {
            LayerType::Mamba => {
                Mixer::Mamba(Box::new(Mamba2::load(config.mamba_dims(), place, &at)?))
            }
            LayerType::Attention => {
                Mixer::Attention(Box::new(Attention::load(config, layer, &at)?))
            }
            LayerType::Mlp => Mixer::Mlp(Mlp::load(config, config.intermediate_size, &at)?),
            LayerType::Moe => Mixer::Experts(Box::new(SparseMoeBlock::load(config, &at)?)),
        };
        let norm = RmsNorm::load(w.at("norm"), config.hidden_size, config.layer_norm_epsilon)?;
        Ok(Self { norm, mixer })
    }
}

impl Attention {
    fn load(
        config: &NemotronHConfig,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let shape = config.attention_shape(layer);
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let parts = [(w.at("q_proj"), q), (w.at("k_proj"), kv), (w.at("v_proj"), kv)];
        Ok(Self {
            qkv_proj: MergedLinear::load(&parts, hidden, bias)?,
            o_proj: Linear::load(w.at("o_proj"), q, hidden, bias)?,
            attn: RadixAttention::new(shape),
        })
    }
}

impl NemotronHForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let config = NemotronHConfig::new(hf)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let backbone = w.at("backbone");
        let layers = (0..config.layers.len())
            .map(|layer| DecoderLayer::load(&config, layer, &backbone.at("layers").layer(layer)))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            context_length: hf.context_length(),
            embeddings: Embedding::load(backbone.at("embeddings"), vocab, hidden, false)?,
            nope: Rope::still(config.head_dim())?,
            layers,
            norm_f: RmsNorm::load(backbone.at("norm_f"), hidden, config.layer_norm_epsilon)?,
            lm_head: LmHead::load(w.at("lm_head"), hidden, vocab)?,
            config,
        })
    }
}

impl NemotronHConfig {
    fn attention_shape(&self, layer: usize) -> AttentionShape {
        let [num_heads, num_kv_heads] = self.heads();
        AttentionShape {
            layer_id: self.place(layer),
            num_heads,
            num_kv_heads,
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            ..AttentionShape::default()
        }
    }
}
