//! Kimi Linear: most layers are recurrent (Kimi Delta Attention), the others have latent
//! attention without positions; experts as DeepSeek-V3's.
//!
//! Upstream: `sglang/srt/models/kimi_linear.py`.

use attention::{AttentionShape, ForwardBatch, StateShape};
use mlx::{Array, Result};
use nn::{
    Embedding, HfConfig, LeftOver, LmHead, LoadError, QuantChoice, RmsNorm, Rope, RopePositions,
    RopeScaling, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{ROUTER_PACKING, left_over},
    mla::LatentAttention,
    residual::forward_layers,
};

mod config;
mod delta_attention;
mod moe;

use config::KimiConfig;
use delta_attention::DeltaAttention;
use moe::MlpOrExperts;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["KimiLinearForCausalLM"],
    model_types: &["kimi_linear"],
    models: "Kimi-Linear-48B-A3B",
    left_over: left_over_mtp,
    quant: pack_routers,
    load: |hf, weights| Ok(Box::new(KimiLinearForCausalLm::load(hf, weights)?)),
};

/// Routers take 8 bits.
fn pack_routers(path: &str) -> QuantChoice {
    if path.ends_with("mlp.gate") { ROUTER_PACKING } else { QuantChoice::Default }
}

/// What predicts further tokens at once is not used.
fn left_over_mtp(config: &HfConfig) -> Vec<LeftOver<'static>> {
    left_over(config).into_iter().chain([LeftOver::Module("model.mtp")]).collect()
}

struct KimiLinearForCausalLm {
    config: KimiConfig,
    context_length: usize,
    embed_tokens: Embedding,
    /// Latent attention has no positions.
    nope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: MlpOrExperts,
}

enum Mixer {
    Latent(Box<LatentAttention>),
    Delta(Box<DeltaAttention>),
}

impl CausalLm for KimiLinearForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let nope = (&self.nope, &self.nope.at(&batch.positions)?);
        let hidden = self.embed_tokens.forward(&batch.input_ids)?;
        let normed =
            forward_layers(hidden, &self.layers, &self.norm, batch, |layer, hidden, delta| {
                layer.forward(hidden, delta, nope, batch)
            })?;
        self.lm_head.forward(&normed)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        let attending = self.config.layers_of(false);
        attending.map(|layer| self.config.attention_shape(layer)).collect()
    }

    fn state_layout(&self) -> Vec<StateShape> {
        let (dims, recurrent) = (self.config.kda_dims(), self.config.layers_of(true));
        recurrent.map(|layer| dims.state_shape(self.config.place(layer))).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.mla.hidden_size
    }

    fn intermediate_size(&self) -> usize {
        let config = &self.config;
        let widest = config.intermediate_size.max(config.moe.widest());
        widest.max(config.mla.absorbed_width()).max(config.kda_dims().channels())
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
        let (hidden, normed) = self.input_layernorm.forward_residual(hidden, delta)?;
        let attn = match &self.self_attn {
            Mixer::Latent(attention) => attention.forward(&normed, nope, batch)?,
            Mixer::Delta(attention) => attention.forward(&normed, batch)?,
        };
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.mlp.forward(&normed)?))
    }

    fn load(
        config: &KimiConfig,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.mla.hidden_size, config.rms_norm_eps);
        let at = w.at("self_attn");
        let self_attn = match config.is_recurrent(layer) {
            true => {
                let place = config.place(layer);
                Mixer::Delta(Box::new(DeltaAttention::load(config.kda_dims(), place, &at)?))
            }
            false => {
                let shape = config.attention_shape(layer);
                Mixer::Latent(Box::new(LatentAttention::load(&config.mla, shape, &at)?))
            }
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: MlpOrExperts::load(config, layer, w)?,
        })
    }
}

impl KimiLinearForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let config = KimiConfig::new(hf)?;
        let (vocab, hidden, tied) =
            (config.vocab_size, config.mla.hidden_size, config.tie_word_embeddings);
        let model = w.at("model");
        let layers = (0..config.num_hidden_layers)
            .map(|layer| DecoderLayer::load(&config, layer, &model.at("layers").layer(layer)))
            .collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(w.at("lm_head"), hidden, vocab)?,
        };
        Ok(Self {
            context_length: hf.context_length(),
            embed_tokens,
            nope: Rope::still(config.mla.qk_rope_head_dim)?,
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl KimiConfig {
    fn attention_shape(&self, layer: usize) -> AttentionShape {
        self.mla.attention_shape(self.place(layer), &RopeScaling::Default)
    }
}
