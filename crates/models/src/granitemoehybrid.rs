//! Granite 4: Granite's layers, most of them with Mamba 2 in place of attention, and experts
//! beside an MLP that every token takes. Granite 3 with experts is the same without Mamba 2
//! and without that MLP, the dense models without experts.
//!
//! Steps of Mamba 2 are not bounded unless config.json has bounds, as in transformers; mlx-lm
//! bounds them by 0.001 and 100.
//!
//! Upstream: `transformers/models/granitemoehybrid/modeling_granitemoehybrid.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention, StateShape};
use mlx::{Array, Result};
use nn::{
    Embedding, FusedMoe, GatedMlp, HfConfig, Linear, LinearWeight, LmHead, LoadError, MergedLinear,
    QuantChoice, RmsNorm, Rope, RopeConfig, RopePositions, Weights,
};

use crate::{
    CausalLm, ModelEntry,
    config::{ROUTER_PACKING, left_over},
    mamba2::Mamba2,
    residual::forward_layers,
    sparse_moe::{PROJ_NAMES, SparseMoe},
};

mod config;

use config::{GraniteHybridConfig, LayerType, Positions};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["GraniteMoeHybridForCausalLM"],
    model_types: &["granitemoehybrid"],
    models: "Granite 4.0",
    left_over,
    quant: |path| match path.ends_with("router.layer") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    },
    load,
};

struct GraniteHybridForCausalLm {
    config: GraniteHybridConfig,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    mixer: Mixer,
    post_attention_layernorm: RmsNorm,
    mlp: MlpOrExperts,
    residual_multiplier: f32,
}

enum Mixer {
    Mamba(Box<Mamba2>),
    Attention(Box<Attention>),
}

struct Attention {
    qkv_proj: MergedLinear,
    o_proj: Linear,
    attn: RadixAttention,
}

enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SparseMoe>),
}

impl CausalLm for GraniteHybridForCausalLm {
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
        self.config.widest()
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
        let mixed = match &self.mixer {
            Mixer::Mamba(mamba) => mamba.forward(&normed, batch)?,
            Mixer::Attention(attention) => {
                let qkv = attention.qkv_proj.forward(&normed)?;
                attention.o_proj.forward(&attention.attn.forward_rope(&qkv, rope, batch)?)?
            }
        };
        let mixed = mixed.mul_scalar(self.residual_multiplier)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&mixed))?;
        let mlp = match &self.mlp {
            MlpOrExperts::Mlp(mlp) => mlp.forward(&normed)?,
            MlpOrExperts::Experts(experts) => experts.forward(&normed)?,
        };
        Ok((hidden, mlp.mul_scalar(self.residual_multiplier)?))
    }
}

pub(crate) fn load(
    hf: &HfConfig,
    w: &Weights,
) -> std::result::Result<Box<dyn CausalLm>, LoadError> {
    let config = GraniteHybridConfig::new(hf)?;
    let (vocab, hidden, tied) = (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
    let rope = match config.position_embedding_type {
        Positions::Rope => Rope::new(config.head_dim(), &RopeConfig::from_config(hf)?)?,
        Positions::Nope => Rope::still(config.head_dim())?,
    };
    let model = w.at("model");
    let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
    let layers =
        (0..config.layer_types.len()).map(layer).collect::<std::result::Result<_, LoadError>>()?;
    let embed_tokens = Embedding::load(model.at("embed_tokens"), vocab, hidden, tied)?;
    let lm_head = match tied {
        true => embed_tokens.as_head()?,
        false => LmHead::load(w.at("lm_head"), hidden, vocab)?,
    };
    Ok(Box::new(GraniteHybridForCausalLm {
        context_length: hf.context_length(),
        embed_tokens,
        rope,
        layers,
        norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
        lm_head,
        config,
    }))
}

impl DecoderLayer {
    fn load(
        config: &GraniteHybridConfig,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        let mixer = match config.layer_types[layer] {
            LayerType::Mamba => {
                let (dims, place) = (config.mamba_dims(), config.place(layer));
                Mixer::Mamba(Box::new(Mamba2::load(dims, place, &w.at("mamba"))?))
            }
            LayerType::Attention => {
                Mixer::Attention(Box::new(Attention::load(config, layer, &w.at("self_attn"))?))
            }
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            mixer,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: match config.has_experts() {
                true => MlpOrExperts::Experts(Box::new(load_experts(config, w)?)),
                false => MlpOrExperts::Mlp(load_mlp(config, w)?),
            },
            residual_multiplier: config.residual_multiplier,
        })
    }
}

/// The MLP of a layer without experts: `mlp` in the MLX format.
fn load_mlp(config: &GraniteHybridConfig, w: &Weights) -> std::result::Result<GatedMlp, LoadError> {
    let (sizes, act) = ([config.hidden_size, config.mlp_inner()], config.hidden_act);
    let (shared, mlp) = (w.at("shared_mlp"), w.at("mlp"));
    match mlp.is_empty() {
        true => Ok(GatedMlp::from_weights(apart(&shared, &mlp, &[], sizes)?, act)?),
        false => GatedMlp::load(&mlp, sizes, act, false),
    }
}

fn load_experts(
    config: &GraniteHybridConfig,
    w: &Weights,
) -> std::result::Result<SparseMoe, LoadError> {
    let (dims, top_k) = config.expert_dims();
    let (moe, shared, act) = (w.at("block_sparse_moe"), w.at("shared_mlp"), config.hidden_act);
    let stacked = moe.at("switch_mlp");
    let experts = match stacked.is_empty() {
        true => {
            let sizes = [dims.hidden, dims.inner];
            let stacks = apart(&moe, &stacked, &[dims.num_experts], sizes)?;
            FusedMoe::from_stacks(stacks, &moe, dims, top_k, act)?
        }
        false => FusedMoe::load((&stacked, &moe.at("experts")), PROJ_NAMES, dims, top_k, act)?,
    };
    let shared = |inner| {
        let names = ["input_linear", "output_linear"];
        GatedMlp::load_fused(&shared, names, [dims.hidden, inner], act)
    };
    let router = Linear::load(moe.at("router.layer"), dims.hidden, dims.num_experts, false)?;
    let shared = config.shared_inner().map(shared).transpose()?;
    Ok(SparseMoe::new(router, experts).with_shared(shared))
}

/// Gate, up and down, or a stack of each, from `input_linear`, gates then values, and
/// `output_linear`. In the MLX format they are at `told`.
fn apart(
    w: &Weights,
    told: &Weights,
    stack: &[usize],
    [hidden, inner]: [usize; 2],
) -> std::result::Result<[LinearWeight; 3], LoadError> {
    let silent = w.silent();
    let take = |name: &str, rows, columns| silent.take(name, &[stack, &[rows, columns]].concat());
    let halves = take("input_linear.weight", 2 * inner, hidden)?.split(2, -2)?;
    let part = |name: &str, part: &Array| told.at(name).derived(&part.contiguous()?);
    let [gate, up] = [part("gate_proj", &halves[0])?, part("up_proj", &halves[1])?];
    Ok([gate, up, part("down_proj", &take("output_linear.weight", hidden, inner)?)?])
}

impl Attention {
    fn load(
        config: &GraniteHybridConfig,
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

impl GraniteHybridConfig {
    fn attention_shape(&self, layer: usize) -> AttentionShape {
        let [num_heads, num_kv_heads] = self.heads();
        AttentionShape {
            layer_id: self.place(layer),
            num_heads,
            num_kv_heads,
            head_dim: self.head_dim(),
            scale: self.attention_multiplier,
            ..AttentionShape::default()
        }
    }
}
