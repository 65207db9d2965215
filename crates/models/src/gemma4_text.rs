//! Gemma 4, text only: Gemma 3's layers, of which those without a window may have wider
//! heads of fewer keys, keys for values, or the keys and values of an earlier layer; with
//! an input of each layer's own, or experts beside the MLP.
//!
//! Upstream: `mlx_lm/models/gemma4_text.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Embedding, GatedMlp, HfConfig, LeftOver, Linear, LmHead, LoadError, MergedLinear, QuantChoice,
    RmsNorm, Rope, RopePositions, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{ROUTER_PACKING, left_over},
};

mod config;
mod experts;
mod layer_inputs;

pub(crate) use config::Gemma4Config;
use experts::Gemma4Moe;
use layer_inputs::{LayerInput, LayerInputs};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Gemma4ForCausalLM"],
    model_types: &["gemma4_text"],
    models: "Gemma 4, text only",
    left_over: left_over_text,
    quant,
    load: |hf, w| {
        let config = Gemma4Config::new(hf)?;
        Ok(Box::new(Gemma4ForCausalLm::load(config, &w.at("model"), w.at("lm_head"))?))
    },
};

/// Projections of K and V in layers that use another's, and a head that is the embedding.
pub(crate) fn left_over_text(hf: &HfConfig) -> Vec<LeftOver<'static>> {
    let config = hf.text().and_then(|text| Gemma4Config::new(&text));
    let Ok(config) = config else { return left_over(hf) };
    let first = config.num_owners();
    let unused = ["self_attn.k_proj", "self_attn.v_proj", "self_attn.k_norm"];
    let unused = unused.map(|module| LeftOver::ModuleFrom { first, module });
    let heads = ["lm_head", "language_model.lm_head"].map(LeftOver::Module);
    let tied = heads.into_iter().filter(|_| config.tie_word_embeddings);
    left_over(hf).into_iter().chain(unused).chain(tied).collect()
}

pub(crate) fn quant(path: &str) -> QuantChoice {
    match path.ends_with("router.proj") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    }
}

pub(crate) struct Gemma4ForCausalLm {
    config: Gemma4Config,
    embed_tokens: Embedding,
    layer_inputs: Option<LayerInputs>,
    rope: Rope,
    /// Of layers with a window.
    local_rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    slides: bool,
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    moe: Option<Gemma4Moe>,
    post_feedforward_layernorm: RmsNorm,
    input: Option<LayerInput>,
    /// `[1]`.
    layer_scalar: Array,
}

struct Attention {
    /// Queries, and keys and values of an owner; values are left out where keys are both.
    qkv_proj: MergedLinear,
    o_proj: Linear,
    q_norm: RmsNorm,
    kv_norms: Option<KvNorms>,
    attn: RadixAttention,
}

/// Of layers with K and V of their own.
struct KvNorms {
    k: RmsNorm,
    /// Without a weight.
    v: RmsNorm,
    keys_are_values: bool,
}

/// K and V of this step that later layers may share, by `layer_id`.
type Kvs = Vec<(Array, Array)>;

impl CausalLm for Gemma4ForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let local = (&self.local_rope, &self.local_rope.at(&batch.positions)?);
        let scale = (self.config.hidden_size as f32).sqrt();
        let mut hidden = self.embed_tokens.forward(&batch.input_ids)?.mul_scalar(scale)?;
        let inputs = self.layer_inputs.as_ref();
        let inputs = inputs.map(|inputs| inputs.forward(&batch.input_ids, &hidden)).transpose()?;
        let mut kvs = Kvs::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let rope = if layer.slides { local } else { rope };
            hidden = layer.forward_attention(&hidden, rope, &mut kvs, batch)?;
            let input = inputs.as_ref().map(|inputs| &inputs[index]);
            hidden = layer.forward_rest(&hidden, input)?;
        }
        let hidden = self.norm.forward(&batch.select_sampled(&hidden)?)?;
        let logits = self.lm_head.forward(&hidden)?;
        match self.config.final_logit_softcapping {
            None => Ok(logits),
            Some(cap) => logits.mul_scalar(cap.recip())?.tanh()?.mul_scalar(cap),
        }
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        (0..self.config.num_owners()).map(|layer| self.config.attention_shape(layer)).collect()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn intermediate_size(&self) -> usize {
        self.config.widest()
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings
    }
}

impl DecoderLayer {
    fn forward_attention(
        &self,
        hidden: &Array,
        rope: (&Rope, &RopePositions),
        kvs: &mut Kvs,
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let normed = self.input_layernorm.forward(hidden)?;
        let attn = self.self_attn.forward(&normed, rope, kvs, batch)?;
        hidden.add(&self.post_attention_layernorm.forward(&attn)?)
    }

    /// The MLP, experts beside it, and the layer's own input.
    fn forward_rest(&self, hidden: &Array, input: Option<&Array>) -> Result<Array> {
        let mut mlp = self.mlp.forward(&self.pre_feedforward_layernorm.forward(hidden)?)?;
        if let Some(moe) = &self.moe {
            mlp = moe.forward(hidden, &mlp)?;
        }
        let mut hidden = hidden.add(&self.post_feedforward_layernorm.forward(&mlp)?)?;
        if let (Some(layer), Some(input)) = (&self.input, input) {
            hidden = layer.forward(&hidden, input)?;
        }
        hidden.multiply(&self.layer_scalar)
    }
}

impl Attention {
    fn forward(
        &self,
        x: &Array,
        (rope, positions): (&Rope, &RopePositions),
        kvs: &mut Kvs,
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let AttentionShape { layer_id, num_heads, num_kv_heads, head_dim, .. } = *self.attn.shape();
        let (q_dim, kv_dim) = (num_heads * head_dim, num_kv_heads * head_dim);
        let qkv = self.qkv_proj.forward(x)?;
        let Some(norms) = &self.kv_norms else {
            let q = rope.rotate(&normed_heads(&self.q_norm, &qkv, head_dim)?, positions)?;
            let (k, v) = &kvs[layer_id];
            return self.o_proj.forward(&self.attn.forward_shared(&q, (k, v), batch)?);
        };
        let ends = [q_dim, q_dim + kv_dim];
        let parts = qkv.split_at(if norms.keys_are_values { &ends[..1] } else { &ends }, 1)?;
        let q = rope.rotate(&normed_heads(&self.q_norm, &parts[0], head_dim)?, positions)?;
        let k = rope.rotate(&normed_heads(&norms.k, &parts[1], head_dim)?, positions)?;
        let v = parts.get(2).unwrap_or(&parts[1]);
        let v = normed_heads(&norms.v, v, head_dim)?.reshape(&k.shape())?;
        let attn = self.attn.forward(&q, &k, &v, batch)?;
        kvs.push((k, v));
        self.o_proj.forward(&attn)
    }
}

/// Rows of heads, each normed by itself.
fn normed_heads(norm: &RmsNorm, x: &Array, head_dim: usize) -> Result<Array> {
    let shape = [x.dim(0), x.dim(1)];
    let heads = x.reshape(&[shape[0] * shape[1] / head_dim, head_dim])?;
    norm.forward(&heads)?.reshape(&shape)
}

impl Gemma4ForCausalLm {
    /// From the tensors of `model` and of `head`, if the head is not tied.
    pub(crate) fn load(
        config: Gemma4Config,
        model: &Weights,
        head: Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        // Refuses before anything is read.
        let rope = |slides: bool| {
            let layer = (0..config.num_hidden_layers).find(|&id| config.slides(id) == slides);
            let head_dim = config.attention_shape(layer.unwrap_or(0)).head_dim;
            Rope::new(head_dim, &config.rope(slides)?)
        };
        let (rope, local_rope) = (rope(false)?, rope(true)?);
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
        let layers =
            (0..config.num_hidden_layers).map(layer).collect::<std::result::Result<_, _>>()?;
        let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => embed_tokens.as_head()?,
            false => LmHead::load(head, hidden, vocab)?,
        };
        let has_inputs = config.per_layer_width() > 0;
        Ok(Self {
            embed_tokens,
            layer_inputs: has_inputs.then(|| LayerInputs::load(&config, model)).transpose()?,
            rope,
            local_rope,
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(
        config: &Gemma4Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, act) = (config.hidden_size, config.hidden_activation);
        let norm = |name: &str| RmsNorm::load(w.at(name), hidden, config.rms_norm_eps);
        let mlp = [hidden, config.mlp_width(layer)];
        let moe = config.moe()?.map(|sizes| Gemma4Moe::load(config, sizes, w)).transpose()?;
        let has_input = config.per_layer_width() > 0;
        Ok(Self {
            slides: config.slides(layer),
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layer, &w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm: norm("pre_feedforward_layernorm")?,
            mlp: GatedMlp::load(&w.at("mlp"), mlp, act, false)?,
            moe,
            post_feedforward_layernorm: norm("post_feedforward_layernorm")?,
            input: has_input.then(|| LayerInput::load(config, w)).transpose()?,
            layer_scalar: w.take("layer_scalar", &[1])?,
        })
    }
}

impl Attention {
    fn load(
        config: &Gemma4Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let shape = config.attention_shape(layer);
        let (hidden, eps, head_dim) = (config.hidden_size, config.rms_norm_eps, shape.head_dim);
        let (q_dim, kv_dim) = (shape.num_heads * head_dim, shape.num_kv_heads * head_dim);
        let owns = config.owner(layer) == layer;
        let keys_are_values = config.keys_are_values(layer);
        let mut parts = vec![(w.at("q_proj"), q_dim)];
        if owns {
            parts.push((w.at("k_proj"), kv_dim));
        }
        if owns && !keys_are_values {
            parts.push((w.at("v_proj"), kv_dim));
        }
        let kv_norms = || {
            let k = RmsNorm::load(w.at("k_norm"), head_dim, eps)?;
            let ones = Array::ones(&[head_dim], w.options().compute_dtype)?;
            Ok::<_, LoadError>(KvNorms { k, v: RmsNorm::with_weight(ones, eps), keys_are_values })
        };
        Ok(Self {
            qkv_proj: MergedLinear::load(&parts, hidden, false)?,
            o_proj: Linear::load(w.at("o_proj"), q_dim, hidden, false)?,
            q_norm: RmsNorm::load(w.at("q_norm"), head_dim, eps)?,
            kv_norms: owns.then(kv_norms).transpose()?,
            attn: RadixAttention::new(shape),
        })
    }
}
