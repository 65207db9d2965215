//! DeepSeek-V2: latent attention, and after the first layers many small experts beside
//! some that every token takes.
//!
//! Upstream: `sglang/srt/models/deepseek_v2.py`.

use attention::{AttentionShape, ForwardBatch};
use mlx::{Array, Result};
use nn::{
    Embedding, HfConfig, LmHead, LoadError, RmsNorm, Rope, RopePositions, RopeScaling, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over, pack_all},
    deepseek_moe::MlpOrExperts,
    mla::LatentAttention,
    residual::forward_layers,
};

mod config;

pub(crate) use config::DeepseekConfig;

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["DeepseekV2ForCausalLM"],
    model_types: &["deepseek_v2"],
    models: "DeepSeek-V2, V2-Lite, V2.5, Coder-V2",
    left_over,
    quant: pack_all,
    load: |hf, weights| DeepseekForCausalLm::load(DeepseekConfig::new(hf)?, hf, weights),
};

pub(crate) struct DeepseekForCausalLm {
    config: DeepseekConfig,
    rope_scaling: RopeScaling,
    context_length: usize,
    model: DeepseekModel,
    lm_head: LmHead,
}

struct DeepseekModel {
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: LatentAttention,
    post_attention_layernorm: RmsNorm,
    mlp: MlpOrExperts,
}

impl CausalLm for DeepseekForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let hidden = self.model.forward(batch)?;
        self.lm_head.forward(&hidden)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        let shape = |layer| self.config.mla.attention_shape(layer, &self.rope_scaling);
        (0..self.config.num_hidden_layers).map(shape).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.mla.hidden_size
    }

    fn intermediate_size(&self) -> usize {
        self.config.moe.widest().max(self.config.mla.absorbed_width())
    }

    fn context_length(&self) -> usize {
        self.context_length
    }
}

impl DeepseekModel {
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

impl DeepseekForCausalLm {
    /// Also of V3 and of models that follow it.
    pub(crate) fn load(
        config: DeepseekConfig,
        hf: &HfConfig,
        w: &Weights,
    ) -> std::result::Result<Box<dyn CausalLm>, LoadError> {
        let (vocab, hidden, tied) =
            (config.vocab_size, config.mla.hidden_size, config.tie_word_embeddings);
        let rope_config = DeepseekConfig::rope(hf)?;
        // Refuses before anything is read.
        let rope = Rope::new(config.mla.qk_rope_head_dim, &rope_config)?;
        let rope_scaling = rope_config.scaling;
        let at = w.at("model");
        let layer = |layer_id| {
            DecoderLayer::load((&config, &rope_scaling), layer_id, &at.at("layers").layer(layer_id))
        };
        let layers =
            (0..config.num_hidden_layers).map(layer).collect::<std::result::Result<_, _>>()?;
        let model = DeepseekModel {
            embed_tokens: Embedding::load(at.at("embed_tokens"), vocab, hidden, tied)?,
            rope,
            layers,
            norm: RmsNorm::load(at.at("norm"), hidden, config.rms_norm_eps)?,
        };
        let lm_head = match tied {
            true => model.embed_tokens.as_head()?,
            false => LmHead::load(w.at("lm_head"), hidden, vocab)?,
        };
        let context_length = hf.context_length();
        Ok(Box::new(Self { context_length, config, rope_scaling, model, lm_head }))
    }
}

impl DecoderLayer {
    fn load(
        (config, rope): (&DeepseekConfig, &RopeScaling),
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = config.mla.hidden_size;
        let norm = |name| RmsNorm::load(w.at(name), hidden, config.rms_norm_eps);
        let shape = config.mla.attention_shape(layer_id, rope);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: LatentAttention::load(&config.mla, shape, &w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: MlpOrExperts::load(&config.moe, hidden, layer_id, &w.at("mlp"))?,
        })
    }
}
