//! Qwen2 with experts (Qwen1.5-MoE, Qwen2-57B-A14B): Qwen2's layers with a mixture of
//! experts for their MLP, and one more expert that takes every token.
//!
//! Upstream: `sglang/srt/models/qwen2_moe.py`.

use attention::{AttentionShape, ForwardBatch};
use mlx::{Array, Result};
use nn::{FusedMoe, HfConfig, Linear, LmHead, LoadError, MoeDims, TopK, Weights, add_gated};

use crate::{
    CausalLm, ModelEntry,
    config::{left_over, pack_all},
    qwen2::{Feedforward, Mlp, Qwen2Config, Qwen2Model},
};

pub(crate) const ENTRY: ModelEntry = ModelEntry {
    architectures: &["Qwen2MoeForCausalLM"],
    model_types: &["qwen2_moe"],
    models: "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
    left_over,
    quant: pack_all,
    load: |config, weights| Ok(Box::new(Qwen2MoeForCausalLm::load(config, weights)?)),
};

struct Qwen2MoeForCausalLm {
    config: Qwen2Config,
    context_length: usize,
    model: Qwen2Model<MlpOrExperts>,
    lm_head: LmHead,
}

enum MlpOrExperts {
    Mlp(Mlp),
    Experts(Box<SparseMoeBlock>),
}

struct SparseMoeBlock {
    /// The router.
    gate: Linear,
    experts: FusedMoe,
    shared_expert: Mlp,
    /// How much of the shared expert each token takes.
    shared_expert_gate: Linear,
}

impl CausalLm for Qwen2MoeForCausalLm {
    fn forward(&self, batch: &ForwardBatch) -> Result<Array> {
        let hidden = self.model.forward(batch)?;
        self.lm_head.forward(&hidden)
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
            Ok(Self::Experts(Box::new(SparseMoeBlock::load(config, &w)?)))
        } else {
            Mlp::load(config, layer_id, w).map(Self::Mlp)
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
    fn load(hf: &HfConfig, w: &Weights) -> Result<Self, LoadError> {
        let config = Qwen2Config::new(hf)?;
        let (model, lm_head) = Qwen2Model::load(&config, hf, w)?;
        Ok(Self { context_length: hf.context_length(), config, model, lm_head })
    }
}

impl SparseMoeBlock {
    fn forward(&self, hidden: &Array) -> Result<Array> {
        let chosen = self.experts.forward(hidden, &self.gate.forward(hidden)?)?;
        let gates = self.shared_expert_gate.forward(hidden)?;
        add_gated(&chosen, &self.shared_expert.forward(hidden)?, &gates)
    }

    fn load(config: &Qwen2Config, w: &Weights) -> Result<Self, LoadError> {
        let moe = &config.moe;
        let (num_experts, hidden) = (moe.num_experts, config.hidden_size);
        let dims = MoeDims { num_experts, hidden, inner: moe.moe_intermediate_size };
        let top_k = TopK { top_k: moe.num_experts_per_tok, renormalize: moe.norm_topk_prob };
        Ok(Self {
            gate: Linear::load(w.at("gate"), hidden, num_experts, false)?,
            experts: FusedMoe::load(
                (&w.at("switch_mlp"), &w.at("experts")),
                ["gate_proj", "up_proj", "down_proj"],
                dims,
                top_k,
                config.hidden_act,
            )?,
            shared_expert: Mlp::load_sized(
                config,
                moe.shared_expert_intermediate_size,
                &w.at("shared_expert"),
            )?,
            shared_expert_gate: Linear::load(w.at("shared_expert_gate"), hidden, 1, false)?,
        })
    }
}
