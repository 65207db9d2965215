//! Model families: one file each, found through [`registry`](load).
//!
//! A model is the graph of one step over flat tokens. It sees no request, no
//! page, no quantization and no backend.
//!
//! Upstream: `sglang/srt/models/`.

mod bailing_moe;
mod bert;
mod causal_lm;
mod cohere2;
mod config;
mod deepseek_moe;
mod deepseek_v2;
mod deepseek_v3;
mod ernie4_5;
mod gated_delta_net;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma3_text;
mod gemma4;
mod gemma4_text;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt_oss;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod kimi_linear;
mod lfm2;
mod lfm2_moe;
mod llama;
mod llama4;
mod llama4_text;
mod mamba2;
mod minimax;
mod ministral3;
mod mistral3;
mod mixed_recipe;
mod mixtral;
mod mla;
mod nemotron_h;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi3;
mod pooled;
mod qwen2;
mod qwen2_moe;
mod qwen2_vl;
mod qwen3;
mod qwen3_5;
mod qwen3_5_moe;
mod qwen3_moe;
mod qwen3_next;
mod qwen3_vl;
mod registry;
mod residual;
mod row_norms;
mod seed_oss;
mod shared_expert_moe;
mod smollm3;
mod sparse_moe;

pub use causal_lm::{Body, CausalLm};
pub use mixed_recipe::{MixedRecipe, UnknownRecipe};
pub use nn::HfConfig;
pub use pooled::{Pooled, PooledRows, is_pooled, load_pooled};
pub use registry::{
    LoadModel, MODELS, ModelEntry, QuantRule, check, known_architectures, load, quant_rule,
};
