//! Layers of a model, and the weights and config that they are built from.
//!
//! Hidden states are `[num_tokens, hidden]` everywhere, over all requests of a
//! step. Layers compute in the element type they are given.

mod activation;
mod device;
mod embedding;
#[cfg(test)]
mod held;
pub mod hf_config;
mod linear;
mod mlp;
mod moe;
mod norm;

pub mod quant;
mod quant_config;
mod rope;
mod weights;

pub use activation::{Activation, softplus};
pub use embedding::Embedding;
pub use hf_config::{GenerationConfig, HfConfig};
pub use linear::{Linear, LmHead, MergedLinear};
pub use mlp::GatedMlp;
pub use moe::{ExpertGroups, FusedMoe, GroupScore, MoeDims, Routing, Scoring, TopK, add_gated};
pub use norm::{LayerNorm, RmsNorm};
pub use quant_config::{QuantConfig, QuantSpec};
pub use rope::{Rope, RopeConfig, RopePositions, RopeScaling, RopeTable};
pub use weights::{
    LeftOver, LinearWeight, LoadError, LoadOptions, QuantChoice, QuantizeOnLoad, TensorSource,
    Unpack, WeightSink, WeightStore, Weights,
};
