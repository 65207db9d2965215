//! The second half of LFM2's layers, with experts or without, see `lfm2_feed_forward` in
//! `tools/oracle/tiny_models.py`.

use serde_json::Value;

use super::{MLP_NAMES, Modules, gated};

fn has_experts(config: &Value, layer: usize) -> bool {
    config["num_dense_layers"].as_u64().is_some_and(|dense| layer >= dense as usize)
}

pub(super) fn expert_bias(config: &Value, layer: usize) -> Option<(&'static str, Vec<usize>)> {
    let is_biased = config["use_expert_bias"] == true && has_experts(config, layer);
    let experts = config["num_experts"].as_u64()? as usize;
    is_biased.then(|| ("feed_forward.expert_bias", vec![experts]))
}

/// mlx-lm renames the matrices of models with experts, and stacks those.
pub(super) fn feed_forward(config: &Value, layer: usize) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, is_packed) = (number("hidden_size"), config.get("quantization").is_some());
    let names = match is_packed && config.get("num_experts").is_some() {
        true => MLP_NAMES,
        false => ["w1", "w3", "w2"],
    };
    if !has_experts(config, layer) {
        return gated("feed_forward", hidden, number("intermediate_size"), names);
    }
    let (experts, inner) = (number("num_experts"), number("moe_intermediate_size"));
    let mut modules = vec![("feed_forward.gate".to_owned(), vec![experts, hidden])];
    if is_packed {
        let stacked = gated("feed_forward.switch_mlp", hidden, inner, names).into_iter();
        modules.extend(stacked.map(|(name, shape)| (name, [vec![experts], shape].concat())));
        return modules;
    }
    let expert = |n| gated(&format!("feed_forward.experts.{n}"), hidden, inner, names);
    modules.extend((0..experts).flat_map(expert));
    modules
}
