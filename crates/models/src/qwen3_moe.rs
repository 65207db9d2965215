//! Qwen3 with experts: Qwen3's layers, most of them with a mixture of experts for
//! their MLP.
//!
//! Upstream: `sglang/srt/models/qwen3_moe.py`.

use attention::{AttentionShape, ForwardBatch};
use mlx::{Array, Result};
use nn::{GatedMlp, HfConfig, LmHead, LoadError, MoeDims, QuantChoice, TopK, Weights};

use crate::{
    Body, CausalLm, ModelEntry,
    config::{ROUTER_PACKING, left_over},
    qwen3::{Feedforward, Qwen3Config, Qwen3Model},
    sparse_moe::{PROJ_NAMES, SparseMoe},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen3MoeForCausalLM"],
    model_types: &["qwen3_moe"],
    models: "Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder",
    left_over,
    quant: pack_routers,
    load: |hf, w| Ok(Box::new(Qwen3MoeForCausalLm::load(hf, &w.at("model"), w.at("lm_head"))?)),
};

/// Routers have 8 bits.
pub(crate) fn pack_routers(path: &str) -> QuantChoice {
    match path.ends_with("mlp.gate") {
        true => ROUTER_PACKING,
        false => QuantChoice::Default,
    }
}

pub(crate) struct Qwen3MoeForCausalLm {
    config: Qwen3Config,
    context_length: usize,
    model: Qwen3Model<MlpOrExperts>,
    lm_head: LmHead,
}

enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SparseMoe>),
}

impl CausalLm for Qwen3MoeForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let hidden = self.model.hidden_states(batch)?;
        self.lm_head.forward(&hidden)
    }

    fn body(&self) -> Option<&dyn Body> {
        Some(&self.model)
    }

    fn kv_layout(&self) -> Vec<AttentionShape> {
        self.config.kv_layout()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    /// What a token's experts have together: the widest of a step.
    fn intermediate_size(&self) -> usize {
        let moe = &self.config.moe;
        (moe.num_experts_per_tok * moe.moe_intermediate_size).max(self.config.intermediate_size)
    }

    fn context_length(&self) -> usize {
        self.context_length
    }
}

impl Feedforward for MlpOrExperts {
    fn load(config: &Qwen3Config, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        if config.has_experts(layer_id) {
            load_experts(config, &w).map(Box::new).map(Self::Experts)
        } else {
            <GatedMlp as Feedforward>::load(config, layer_id, w).map(Self::Mlp)
        }
    }

    fn forward(&self, hidden: &Array) -> Result<Array> {
        match self {
            Self::Mlp(mlp) => mlp.forward(hidden),
            Self::Experts(experts) => experts.forward(hidden),
        }
    }
}

impl Qwen3MoeForCausalLm {
    /// From the tensors of `model` and of `head`, if the head is not tied.
    pub(crate) fn load(hf: &HfConfig, model: &Weights, head: Weights) -> Result<Self, LoadError> {
        let config = Qwen3Config::new(hf)?;
        let (model, lm_head) = Qwen3Model::load(&config, hf, model, head)?;
        Ok(Self { context_length: hf.context_length(), config, model, lm_head })
    }
}

fn load_experts(config: &Qwen3Config, w: &Weights) -> Result<SparseMoe, LoadError> {
    let moe = &config.moe;
    let (num_experts, hidden) = (moe.num_experts, config.hidden_size);
    let dims = MoeDims { num_experts, hidden, inner: moe.moe_intermediate_size };
    let top_k = TopK { top_k: moe.num_experts_per_tok, renormalize: moe.norm_topk_prob };
    SparseMoe::load(w, PROJ_NAMES, dims, top_k, config.hidden_act)
}
