//! Ling and Ring: grouped attention with norms of heads, of which a part may rotate, and
//! DeepSeek's experts under other names.
//!
//! Upstream: `mlx_lm/models/bailing_moe.py`, `sglang/srt/models/bailing_moe.py`.

use attention::{AttentionShape, ForwardBatch, HeadNorms, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, ExpertGroups, FusedMoe, GatedMlp, GroupScore, HfConfig, Linear, LmHead,
    LoadError, MoeDims, QuantChoice, RmsNorm, Rope, RopeConfig, RopePositions, Routing, Scoring,
    TopK, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{
        ROUTER_PACKING, check_heads, check_sizes, config_error, default_act, is_tied,
        with_rotary_dim,
    },
    deepseek_v3::left_over_layers,
    residual::forward_layers,
    sparse_moe::{PROJ_NAMES, SparseMoe},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["BailingMoeForCausalLM", "BailingMoeV2ForCausalLM"],
    model_types: &["bailing_moe"],
    models: "Ling and Ring 1.5 and 2.0: lite, mini, flash, 1T",
    left_over: left_over_layers,
    quant: |path| match path.ends_with("mlp.gate.gate_proj") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    },
    load: |hf, weights| Ok(Box::new(BailingForCausalLm::load(hf, weights)?)),
};

/// Every field of config.json that changes the graph.
#[derive(Debug, Clone, Deserialize)]
struct BailingConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    /// Elements of a head that rotate.
    rotary_dim: Option<usize>,
    vocab_size: usize,
    #[serde(default = "default_act")]
    hidden_act: Activation,
    rms_norm_eps: f32,
    #[serde(default)]
    use_bias: bool,
    #[serde(default)]
    use_qkv_bias: bool,
    #[serde(default)]
    use_qk_norm: bool,
    #[serde(default)]
    norm_head: bool,
    num_experts: usize,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    num_shared_experts: usize,
    moe_shared_expert_intermediate_size: Option<usize>,
    #[serde(default = "yes")]
    moe_router_enable_shared_expert: bool,
    /// Whether experts have a bias that chooses them.
    #[serde(default)]
    moe_router_enable_expert_bias: bool,
    /// Layers before this one have no experts.
    first_k_dense_replace: usize,
    norm_topk_prob: bool,
    #[serde(default = "factor")]
    routed_scaling_factor: f32,
    score_function: Option<String>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
    #[serde(skip)]
    tie_word_embeddings: bool,
}

struct BailingForCausalLm {
    config: BailingConfig,
    context_length: usize,
    word_embeddings: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    attention: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: MlpOrExperts,
}

struct Attention {
    query_key_value: Linear,
    dense: Linear,
    attn: RadixAttention,
}

enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SparseMoe>),
}

impl CausalLm for BailingForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let rope = (&self.rope, &self.rope.at(&batch.positions)?);
        let hidden = self.word_embeddings.forward(&batch.input_ids)?;
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
        let config = &self.config;
        (config.num_experts_per_tok * config.moe_intermediate_size)
            .max(config.shared_inner().unwrap_or(0))
            .max(config.intermediate_size)
    }

    fn context_length(&self) -> usize {
        self.context_length
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
        let qkv = self.attention.query_key_value.forward(&normed)?;
        let attn = self.attention.attn.forward_rope(&qkv, rope, batch)?;
        let attn = self.attention.dense.forward(&attn)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        let mlp = match &self.mlp {
            MlpOrExperts::Mlp(mlp) => mlp.forward(&normed)?,
            MlpOrExperts::Experts(experts) => experts.forward(&normed)?,
        };
        Ok((hidden, mlp))
    }
}

impl BailingForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let config = BailingConfig::new(hf)?;
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        let rope = RopeConfig::partial_from_config(hf)?;
        let rope = with_rotary_dim(rope, config.rotary_dim, config.head_dim());
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &rope)?;
        let model = w.at("model");
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
        let layers =
            (0..config.num_hidden_layers).map(layer).collect::<std::result::Result<_, _>>()?;
        let word_embeddings = Embedding::load(model.at("word_embeddings"), vocab, hidden, tied)?;
        let lm_head = match tied {
            true => word_embeddings.as_head()?,
            false => LmHead::load(w.at("lm_head"), hidden, vocab)?,
        };
        Ok(Self {
            context_length: hf.context_length(),
            word_embeddings,
            rope,
            layers,
            norm: RmsNorm::load(model.at("norm"), hidden, config.rms_norm_eps)?,
            lm_head,
            config,
        })
    }
}

impl DecoderLayer {
    fn load(
        config: &BailingConfig,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        let mlp = w.at("mlp");
        let sizes = [config.hidden_size, config.intermediate_size];
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            attention: Attention::load(config, layer, &w.at("attention"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: match layer < config.first_k_dense_replace {
                true => MlpOrExperts::Mlp(GatedMlp::load(&mlp, sizes, config.hidden_act, false)?),
                false => MlpOrExperts::Experts(Box::new(config.load_experts(&mlp)?)),
            },
        })
    }
}

impl Attention {
    fn load(
        config: &BailingConfig,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, shape) = (config.hidden_size, config.attention_shape(layer));
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let head_dim = shape.head_dim;
        let norm = |name| RmsNorm::load(w.at(name), head_dim, config.rms_norm_eps);
        let mut attn = RadixAttention::new(shape);
        if config.use_qk_norm {
            let norms = HeadNorms { q: norm("query_layernorm")?, k: norm("key_layernorm")? };
            attn = attn.with_norms(norms);
        }
        let (qkv, bias) = (w.at("query_key_value"), config.use_qkv_bias);
        Ok(Self {
            query_key_value: Linear::load(qkv, hidden, q + 2 * kv, bias)?,
            dense: Linear::load(w.at("dense"), q, hidden, false)?,
            attn,
        })
    }
}

impl BailingConfig {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_experts", config.num_experts),
            ("moe_intermediate_size", config.moe_intermediate_size),
            ("vocab_size", config.vocab_size),
        ])?;
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        check_heads(config.hidden_size, heads, config.head_dim)?;
        if !config.routed_scaling_factor.is_finite() {
            return Err(config_error("routed_scaling_factor", "must be finite".to_owned()));
        }
        for (what, is_set) in [("use_bias", config.use_bias), ("norm_head", config.norm_head)] {
            if is_set {
                return Err(LoadError::Unsupported { what, value: "true".to_owned() });
            }
        }
        Ok(config)
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Inner width of the MLP beside the experts.
    fn shared_inner(&self) -> Option<usize> {
        let each = self.moe_shared_expert_intermediate_size.unwrap_or(self.moe_intermediate_size);
        let inner = each * self.num_shared_experts;
        Some(inner).filter(|&inner| inner > 0 && self.moe_router_enable_shared_expert)
    }

    fn routing(&self, gate: &Weights) -> std::result::Result<Routing, LoadError> {
        let bias = || gate.take_as_stored("expert_bias", &[self.num_experts]);
        let num_groups = self.n_group.unwrap_or(1);
        let top_groups = self.topk_group.unwrap_or(num_groups);
        let groups = ExpertGroups { num_groups, top_groups, score: GroupScore::BestTwo };
        Ok(Routing {
            scoring: Scoring::from_name(self.score_function.as_deref().unwrap_or("softmax"))?,
            groups: (num_groups != 1).then_some(groups),
            bias: self.moe_router_enable_expert_bias.then(bias).transpose()?,
            scale: self.routed_scaling_factor,
            expert_scale: None,
        })
    }

    fn load_experts(&self, w: &Weights) -> std::result::Result<SparseMoe, LoadError> {
        let (num_experts, hidden, act) = (self.num_experts, self.hidden_size, self.hidden_act);
        let dims = MoeDims { num_experts, hidden, inner: self.moe_intermediate_size };
        let top_k = self.num_experts_per_tok;
        let top_k = TopK { top_k, renormalize: top_k > 1 && self.norm_topk_prob };
        let (gate, packed) = (w.at("gate"), w.at("gate.gate_proj"));
        // The router is a module below that one in the MLX format.
        let router = match packed.is_empty() {
            true => gate.told_as(&packed),
            false => packed,
        };
        let places = (&w.at("switch_mlp"), &w.at("experts"));
        let experts = FusedMoe::load(places, PROJ_NAMES, dims, top_k, act)?;
        let experts = experts.with_routing(self.routing(&gate)?)?;
        let shared = |inner| GatedMlp::load(&w.at("shared_experts"), [hidden, inner], act, false);
        let router = Linear::load(router, hidden, num_experts, false)?;
        let shared = self.shared_inner().map(shared).transpose()?;
        Ok(SparseMoe::new(router, experts).with_shared(shared))
    }

    fn attention_shape(&self, layer_id: usize) -> AttentionShape {
        AttentionShape {
            layer_id,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim(),
            scale: (self.head_dim() as f32).sqrt().recip(),
            ..AttentionShape::default()
        }
    }
}

fn yes() -> bool {
    true
}

fn factor() -> f32 {
    1.0
}
