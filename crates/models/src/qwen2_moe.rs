//! Qwen2 with experts (Qwen1.5-MoE, Qwen2-57B-A14B): Qwen2's layers with a mixture of
//! experts for their MLP, and one more expert that takes every token.
//!
//! Upstream: `sglang/srt/models/qwen2_moe.py`.

use attention::{AttentionShape, ForwardBatch};
use mlx::{Array, Result};
use nn::{GatedMlp, HfConfig, LmHead, LoadError, MoeDims, TopK, Weights};

use crate::{
    Body, CausalLm, ModelEntry,
    config::{left_over, pack_all},
    qwen2::{Feedforward, Qwen2Config, Qwen2Model},
    shared_expert_moe::SharedExpertMoe,
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen2MoeForCausalLM"],
    model_types: &["qwen2_moe"],
    models: "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
    left_over,
    quant: pack_all,
    load: |hf, w| Ok(Box::new(Qwen2MoeForCausalLm::load(hf, &w.at("model"), w.at("lm_head"))?)),
};

struct Qwen2MoeForCausalLm {
    config: Qwen2Config,
    context_length: usize,
    model: Qwen2Model<MlpOrExperts>,
    lm_head: LmHead,
}

enum MlpOrExperts {
    Mlp(GatedMlp),
    Experts(Box<SharedExpertMoe>),
}

impl CausalLm for Qwen2MoeForCausalLm {
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
        (moe.num_experts_per_tok * moe.moe_intermediate_size)
            .max(moe.shared_expert_intermediate_size)
            .max(self.config.intermediate_size)
    }

    fn context_length(&self) -> usize {
        self.context_length
    }
}

impl Feedforward for MlpOrExperts {
    fn load(config: &Qwen2Config, layer_id: usize, w: Weights) -> Result<Self, LoadError> {
        if config.has_experts(layer_id) {
            let moe = &config.moe;
            let dims = MoeDims {
                num_experts: moe.num_experts,
                hidden: config.hidden_size,
                inner: moe.moe_intermediate_size,
            };
            let top_k = TopK { top_k: moe.num_experts_per_tok, renormalize: moe.norm_topk_prob };
            let shared = moe.shared_expert_intermediate_size;
            let block = SharedExpertMoe::load(&w, dims, shared, top_k, config.hidden_act)?;
            Ok(Self::Experts(Box::new(block)))
        } else {
            <GatedMlp as Feedforward>::load(config, layer_id, w).map(Self::Mlp)
        }
    }

    fn forward(&self, hidden: &Array) -> Result<Array> {
        match self {
            Self::Mlp(mlp) => mlp.forward(hidden),
            Self::Experts(block) => block.forward(hidden),
        }
    }
}

impl Qwen2MoeForCausalLm {
    fn load(hf: &HfConfig, model: &Weights, head: Weights) -> Result<Self, LoadError> {
        let config = Qwen2Config::new(hf)?;
        let (model, lm_head) = Qwen2Model::load(&config, hf, model, head)?;
        Ok(Self { context_length: hf.context_length(), config, model, lm_head })
    }
}
