//! LFM2 with experts: LFM2's layers, all but the first with a mixture of experts for their
//! MLP. Sigmoids weigh the experts, and a bias helps to choose them.
//!
//! Weights of a token's experts are divided by their sum alone: the 1e-6 that the models'
//! own code adds to it is lost in bf16.
//!
//! Upstream: `mlx_lm/models/lfm2_moe.py`, `sglang/srt/models/lfm2_moe.py`.

use mlx::{Array, Result};
use nn::{Activation, GatedMlp, LoadError, MoeDims, QuantChoice, Routing, Scoring, TopK, Weights};

use crate::{
    ModelEntry,
    config::ROUTER_PACKING,
    lfm2::{Feedforward, Lfm2Config, Lfm2ForCausalLm, left_over},
    sparse_moe::{PROJ_NAMES, SparseMoe, W_NAMES},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Lfm2MoeForCausalLM"],
    model_types: &["lfm2_moe"],
    models: "LFM2-8B-A1B",
    left_over,
    quant: |path| match path.ends_with("feed_forward.gate") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    },
    load: |hf, weights| {
        let config = Lfm2Config::new(hf)?;
        config.moe.check()?;
        Lfm2ForCausalLm::<MlpOrExperts>::load(config, hf, weights)
    },
};

enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SparseMoe>),
}

impl Feedforward for MlpOrExperts {
    fn load(
        config: &Lfm2Config,
        layer: usize,
        w: &Weights,
    ) -> std::result::Result<Self, LoadError> {
        match layer < config.moe.num_dense_layers {
            true => load_mlp(config, w).map(Self::Mlp),
            false => load_experts(config, w).map(Box::new).map(Self::Experts),
        }
    }

    fn forward(&self, hidden: &Array) -> Result<Array> {
        match self {
            Self::Mlp(mlp) => mlp.forward(hidden),
            Self::Experts(experts) => experts.forward(hidden),
        }
    }

    /// What a token's experts have together counts where it is more.
    fn widest(config: &Lfm2Config) -> usize {
        (config.moe.num_experts_per_tok * config.moe.moe_intermediate_size).max(config.inner())
    }
}

/// The MLP of a layer without experts, whose matrices have other names in the MLX format.
fn load_mlp(config: &Lfm2Config, w: &Weights) -> std::result::Result<GatedMlp, LoadError> {
    let sizes = [config.hidden_size, config.inner()];
    let mut parts = PROJ_NAMES.map(|name| w.at(name));
    if parts.iter().all(Weights::is_empty) {
        parts = [0, 1, 2].map(|part| w.at(W_NAMES[part]).told_as(&parts[part]));
    }
    GatedMlp::load_at(parts, sizes, Activation::Silu, false)
}

fn load_experts(config: &Lfm2Config, w: &Weights) -> std::result::Result<SparseMoe, LoadError> {
    let (moe, hidden) = (&config.moe, config.hidden_size);
    let num_experts = moe.num_experts;
    let dims = MoeDims { num_experts, hidden, inner: moe.moe_intermediate_size };
    let top_k = TopK { top_k: moe.num_experts_per_tok, renormalize: moe.norm_topk_prob };
    let bias = || w.take_as_stored("expert_bias", &[num_experts]);
    let routing = Routing {
        scoring: Scoring::Sigmoid,
        groups: None,
        bias: moe.use_expert_bias.then(bias).transpose()?,
        scale: moe.routed_scaling_factor,
        expert_scale: None,
    };
    SparseMoe::load(w, W_NAMES, dims, top_k, Activation::Silu)?.with_routing(routing)
}
