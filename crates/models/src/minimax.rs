//! MiniMax M2: norms of q and k span all heads, a part of each head rotates, and sigmoids
//! weigh the experts, which a bias helps to choose. The router computes in f32.
//!
//! Upstream: `mlx_lm/models/minimax.py`, `sglang/srt/models/minimax_m2.py`.

use attention::{AttentionShape, ForwardBatch, RadixAttention};
use mlx::{Array, Result};
use nn::{
    Activation, Embedding, HfConfig, Linear, LmHead, LoadError, MergedLinear, MoeDims, QuantChoice,
    RmsNorm, Rope, RopeConfig, RopePositions, Routing, Scoring, TopK, Weights,
};
use serde::Deserialize;

use crate::{
    CausalLm, ModelEntry,
    config::{
        ROUTER_PACKING, check_heads, check_length, check_sizes, default_act, is_tied,
        with_default_theta, with_rotary_dim,
    },
    deepseek_v3::left_over_layers,
    residual::forward_layers,
    row_norms::RowNorms,
    sparse_moe::{SparseMoe, W_NAMES},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["MiniMaxM2ForCausalLM"],
    model_types: &["minimax", "minimax_m2"],
    models: "MiniMax-M2, M2.1, M2.5",
    left_over: left_over_layers,
    quant: |path| match path.ends_with("block_sparse_moe.gate") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    },
    load: |hf, weights| Ok(Box::new(MiniMaxForCausalLm::load(hf, weights)?)),
};

const ROPE_THETA: f32 = 5_000_000.0;

/// Every field of config.json that changes the graph.
#[derive(Debug, Clone, Deserialize)]
struct MiniMaxConfig {
    hidden_size: usize,
    /// Inner width of an expert.
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
    num_local_experts: usize,
    num_experts_per_tok: usize,
    #[serde(default = "yes")]
    use_qk_norm: bool,
    qk_norm_type: Option<String>,
    scoring_func: Option<String>,
    #[serde(default = "yes")]
    use_routing_bias: bool,
    #[serde(default)]
    shared_intermediate_size: usize,
    sliding_window: Option<usize>,
    /// 1 where a layer attends; 0 is the linear attention of earlier models.
    attn_type_list: Option<Vec<u8>>,
    #[serde(skip)]
    tie_word_embeddings: bool,
}

struct MiniMaxForCausalLm {
    config: MiniMaxConfig,
    context_length: usize,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: LmHead,
}

struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    block_sparse_moe: SparseMoe,
}

struct Attention {
    qkv_proj: MergedLinear,
    norms: Option<RowNorms>,
    o_proj: Linear,
    attn: RadixAttention,
}

impl CausalLm for MiniMaxForCausalLm {
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

    /// What a token's experts have together.
    fn intermediate_size(&self) -> usize {
        self.config.num_experts_per_tok * self.config.intermediate_size
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
        let attn = self.self_attn.forward(&normed, rope, batch)?;
        let (hidden, normed) =
            self.post_attention_layernorm.forward_residual(&hidden, Some(&attn))?;
        Ok((hidden, self.block_sparse_moe.forward_wide(&normed)?))
    }
}

impl Attention {
    fn forward(
        &self,
        hidden: &Array,
        rope: (&Rope, &RopePositions),
        batch: &ForwardBatch,
    ) -> Result<Array> {
        let qkv = self.qkv_proj.forward(hidden)?;
        let qkv = match &self.norms {
            Some(norms) => norms.forward(&qkv)?,
            None => qkv,
        };
        self.o_proj.forward(&self.attn.forward_rope(&qkv, rope, batch)?)
    }
}

impl MiniMaxForCausalLm {
    fn load(hf: &HfConfig, w: &Weights) -> std::result::Result<Self, LoadError> {
        let config = MiniMaxConfig::new(hf)?;
        let (vocab, hidden, tied) =
            (config.vocab_size, config.hidden_size, config.tie_word_embeddings);
        // Refuses before anything is read.
        let rope = Rope::new(config.head_dim(), &config.rope(hf)?)?;
        let model = w.at("model");
        let layer = |id| DecoderLayer::load(&config, id, &model.at("layers").layer(id));
        let layers =
            (0..config.num_hidden_layers).map(layer).collect::<std::result::Result<_, _>>()?;
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
    fn load(
        config: &MiniMaxConfig,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let norm = |name| RmsNorm::load(w.at(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layer_id, &w.at("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            block_sparse_moe: config.load_experts(&w.at("block_sparse_moe"))?,
        })
    }
}

impl Attention {
    fn load(
        config: &MiniMaxConfig,
        layer_id: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, shape) = (config.hidden_size, config.attention_shape(layer_id));
        let (q, kv) = (shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim);
        let parts = [(w.at("q_proj"), q), (w.at("k_proj"), kv), (w.at("v_proj"), kv)];
        let norms = || RowNorms::load(w, &shape, config.rms_norm_eps);
        Ok(Self {
            qkv_proj: MergedLinear::load(&parts, hidden, false)?,
            norms: config.use_qk_norm.then(norms).transpose()?,
            o_proj: Linear::load(w.at("o_proj"), q, hidden, false)?,
            attn: RadixAttention::new(shape),
        })
    }
}

impl MiniMaxConfig {
    fn new(hf: &HfConfig) -> std::result::Result<Self, LoadError> {
        let mut config: Self = hf.parse()?;
        config.tie_word_embeddings = is_tied(hf)?;
        config.refuse()?;
        check_sizes(&[
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_local_experts", config.num_local_experts),
            ("vocab_size", config.vocab_size),
        ])?;
        let heads = [config.num_attention_heads, config.num_key_value_heads];
        check_heads(config.hidden_size, heads, config.head_dim)?;
        Ok(config)
    }

    /// What the graph does not follow.
    fn refuse(&self) -> std::result::Result<(), LoadError> {
        let types = self.attn_type_list.as_deref().unwrap_or(&[]);
        if !types.is_empty() {
            check_length("attn_type_list", types.len(), self.num_hidden_layers)?;
        }
        let other = types.iter().find(|&&kind| kind != 1).map(u8::to_string);
        let not = |value: &Option<String>, known: &str| value.clone().filter(|name| name != known);
        let shared = Some(self.shared_intermediate_size).filter(|&width| width != 0);
        let unsupported = [
            ("attn_type_list", other),
            ("qk_norm_type", not(&self.qk_norm_type, "per_layer")),
            ("scoring_func", not(&self.scoring_func, "sigmoid")),
            ("use_routing_bias", (!self.use_routing_bias).then(|| "false".to_owned())),
            ("shared_intermediate_size", shared.map(|width| width.to_string())),
            ("sliding_window", self.sliding_window.map(|window| window.to_string())),
        ];
        match unsupported.into_iter().find_map(|(what, value)| Some((what, value?))) {
            Some((what, value)) => Err(LoadError::Unsupported { what, value }),
            None => Ok(()),
        }
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    fn rope(&self, hf: &HfConfig) -> std::result::Result<RopeConfig, LoadError> {
        let rope = with_default_theta(RopeConfig::partial_from_config(hf)?, hf, ROPE_THETA);
        Ok(with_rotary_dim(rope, self.rotary_dim, self.head_dim()))
    }

    fn load_experts(&self, w: &Weights) -> std::result::Result<SparseMoe, LoadError> {
        let (num_experts, hidden) = (self.num_local_experts, self.hidden_size);
        let dims = MoeDims { num_experts, hidden, inner: self.intermediate_size };
        let top_k = TopK { top_k: self.num_experts_per_tok, renormalize: true };
        let routing = Routing {
            scoring: Scoring::Sigmoid,
            groups: None,
            bias: Some(w.take_as_stored("e_score_correction_bias", &[num_experts])?),
            scale: 1.0,
            expert_scale: None,
        };
        SparseMoe::load(w, W_NAMES, dims, top_k, self.hidden_act)?.with_routing(routing)
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
