//! Layers of a model, and the weights and config that they are built from.

pub mod hf_config;
mod quant_config;
mod weights;

pub use hf_config::{GenerationConfig, HfConfig};
pub use quant_config::{QuantConfig, QuantSpec};
pub use weights::{
    LeftOver, LinearWeight, LoadError, LoadOptions, TensorSource, WeightStore, Weights,
};
