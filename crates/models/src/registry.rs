//! All model families, by architecture.
//!
//! Upstream: `sglang/srt/models/registry.py`.

use nn::{HfConfig, LeftOver, LoadError, QuantChoice, Weights};

use crate::{
    CausalLm, bailing_moe, cohere2, deepseek_v2, deepseek_v3, ernie4_5, gemma, gemma2, gemma3,
    gemma3_text, gemma4, gemma4_text, glm4, glm4_moe, glm4_moe_lite, gpt_oss, granite, granitemoe,
    granitemoehybrid, kimi_linear, lfm2, lfm2_moe, llama, llama4, llama4_text, minimax, ministral3,
    mistral3, mixtral, nemotron_h, olmo2, olmo3, olmoe, phi3, pooled::is_pooled, qwen2, qwen2_moe,
    qwen2_vl, qwen3, qwen3_5, qwen3_5_moe, qwen3_moe, qwen3_next, qwen3_vl, seed_oss, smollm3,
};

/// Builds a model from its config and weights.
pub type LoadModel = fn(&HfConfig, &Weights) -> Result<Box<dyn CausalLm>, LoadError>;

/// A family and how to load it.
pub struct ModelEntry {
    /// Values of `architectures` in config.json, sorted.
    pub architectures: &'static [&'static str],
    /// Values of `model_type`, for folders whose config names no architecture.
    pub model_types: &'static [&'static str],
    /// Models of the family, for people.
    pub models: &'static str,
    /// Tensors that some checkpoints hold and the model has no use for.
    pub left_over: fn(&HfConfig) -> Vec<LeftOver<'static>>,
    /// How a matrix is packed when the model is quantized, by its module path: as
    /// mlx-lm does it.
    pub quant: QuantRule,
    /// Builds the model.
    pub load: LoadModel,
}

/// A family's exceptions from packing all matrices alike.
pub type QuantRule = fn(&str) -> QuantChoice;

/// Sorted by first architecture.
pub const MODELS: &[ModelEntry] = &[
    bailing_moe::ENTRY,
    cohere2::ENTRY,
    deepseek_v2::ENTRY,
    deepseek_v3::ENTRY,
    ernie4_5::ENTRY,
    gemma2::ENTRY,
    gemma3_text::ENTRY,
    gemma3::ENTRY,
    gemma4_text::ENTRY,
    gemma4::ENTRY,
    gemma::ENTRY,
    glm4::ENTRY,
    glm4_moe::ENTRY,
    glm4_moe_lite::ENTRY,
    gpt_oss::ENTRY,
    granite::ENTRY,
    granitemoe::ENTRY,
    granitemoehybrid::ENTRY,
    kimi_linear::ENTRY,
    lfm2::ENTRY,
    lfm2_moe::ENTRY,
    llama4_text::ENTRY,
    llama4::ENTRY,
    llama::ENTRY,
    minimax::ENTRY,
    ministral3::ENTRY,
    mistral3::ENTRY,
    mixtral::ENTRY,
    nemotron_h::ENTRY,
    olmo2::ENTRY,
    olmo3::ENTRY,
    olmoe::ENTRY,
    phi3::ENTRY,
    qwen2::ENTRY,
    qwen2_moe::ENTRY,
    qwen2_vl::ENTRY,
    qwen3::ENTRY,
    qwen3_moe::ENTRY,
    qwen3_next::ENTRY,
    qwen3_vl::ENTRY,
    qwen3_5::ENTRY,
    qwen3_5_moe::ENTRY,
    seed_oss::ENTRY,
    smollm3::ENTRY,
];

/// Builds the model of a checkpoint. Every tensor must be used exactly once.
///
/// # Errors
/// An architecture that is not known (lists the known), a config value that
/// changes the graph in a way no code here follows, a tensor missing, left over
/// or of the wrong shape.
pub fn load(config: &HfConfig, weights: &Weights) -> Result<Box<dyn CausalLm>, LoadError> {
    let entry = find(config)?;
    let model = (entry.load)(config, weights)?;
    weights.finish(&(entry.left_over)(config))?;
    Ok(model)
}

/// Whether [`load`] or [`crate::load_pooled`] knows the architecture of a config.
///
/// # Errors
/// It does not; lists those that [`load`] knows.
pub fn check(config: &HfConfig) -> Result<(), LoadError> {
    if is_pooled(config) { Ok(()) } else { find(config).map(|_| ()) }
}

/// The exceptions from packing all matrices of this model alike.
///
/// # Errors
/// As for [`check`].
pub fn quant_rule(config: &HfConfig) -> Result<QuantRule, LoadError> {
    Ok(find(config)?.quant)
}

/// Every architecture that [`load`] knows, sorted.
pub fn known_architectures() -> Vec<&'static str> {
    let mut known: Vec<_> = MODELS.iter().flat_map(|entry| entry.architectures).copied().collect();
    known.sort_unstable();
    known
}

pub(crate) fn find(config: &HfConfig) -> Result<&'static ModelEntry, LoadError> {
    let architectures = config.architectures();
    let by_architecture = || {
        MODELS.iter().find(|entry| {
            architectures.iter().any(|name| entry.architectures.contains(&name.as_str()))
        })
    };
    let by_type = || {
        let model_type = config.model_type().filter(|_| architectures.is_empty())?;
        MODELS.iter().find(|entry| entry.model_types.contains(&model_type))
    };
    by_architecture().or_else(by_type).ok_or_else(|| {
        let named = match architectures {
            [] => config.model_type().unwrap_or("(none)").to_owned(),
            names => names.join(", "),
        };
        LoadError::Config {
            file: "config.json",
            field: "architectures".to_owned(),
            reason: format!("{named} is not known (known: {})", known_architectures().join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_unique_and_sorted() {
        assert!(MODELS.is_sorted_by_key(|entry| entry.architectures[0]));
        let all = known_architectures();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
    }

    #[test]
    fn an_unknown_architecture_lists_the_known() {
        let error = |text| find(&HfConfig::from_json(text).unwrap()).err().unwrap().to_string();
        let known = known_architectures().join(", ");
        assert!(known.contains(", LlamaForCausalLM, MiniMaxM2ForCausalLM, "));
        assert_eq!(
            error(r#"{"architectures": ["OptForCausalLM"], "model_type": "llama"}"#),
            format!("config.json: architectures: OptForCausalLM is not known (known: {known})")
        );
        assert_eq!(
            error("{}"),
            format!("config.json: architectures: (none) is not known (known: {known})")
        );
    }

    #[test]
    fn a_model_type_stands_in_for_a_missing_architecture() {
        let config = HfConfig::from_json(r#"{"model_type": "mistral"}"#).unwrap();
        assert!(find(&config).is_ok());
    }
}
