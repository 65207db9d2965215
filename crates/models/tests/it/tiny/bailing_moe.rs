//! Tensors of Ling and Ring, see `bailing_moe` in `tools/oracle/tiny_models.py`.

use serde_json::Value;

use super::{MLP_NAMES, Modules, gated};

pub(super) fn shapes(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, vocab) = (number("hidden_size"), number("vocab_size"));
    let mut shapes = vec![
        ("model.word_embeddings.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if config["tie_word_embeddings"] != true {
        shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    }
    for layer in 0..number("num_hidden_layers") {
        let is_dense = layer < number("first_k_dense_replace");
        let mut modules = attention(config);
        modules.extend(match is_dense {
            true => gated("mlp", hidden, number("intermediate_size"), MLP_NAMES),
            false => experts(config),
        });
        let norms = ["input", "post_attention"];
        modules.extend(norms.map(|norm| (format!("{norm}_layernorm"), vec![hidden])));
        let weight = |(name, shape)| (format!("{name}.weight"), shape);
        let mut tensors: Modules = modules.into_iter().map(weight).collect();
        if config["use_qkv_bias"] == true {
            let rows = tensors[0].1[0];
            tensors.push(("attention.query_key_value.bias".to_owned(), vec![rows]));
        }
        if config["moe_router_enable_expert_bias"] == true && !is_dense {
            tensors.push(("mlp.gate.expert_bias".to_owned(), vec![number("num_experts")]));
        }
        let below = |(name, shape)| (format!("model.layers.{layer}.{name}"), shape);
        shapes.extend(tensors.into_iter().map(below));
    }
    shapes
}

fn attention(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, heads) = (number("hidden_size"), number("num_attention_heads"));
    let head_dim = hidden / heads;
    let qkv = (heads + 2 * number("num_key_value_heads")) * head_dim;
    let mut modules = vec![
        ("attention.query_key_value".to_owned(), vec![qkv, hidden]),
        ("attention.dense".to_owned(), vec![hidden, hidden]),
    ];
    if config["use_qk_norm"] == true {
        let norm = |part| (format!("attention.{part}_layernorm"), vec![head_dim]);
        modules.extend(["query", "key"].map(norm));
    }
    modules
}

/// One by one as published, or stacked as mlx-lm writes them.
fn experts(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, inner) = (number("hidden_size"), number("moe_intermediate_size"));
    let experts = number("num_experts");
    let mut modules = Vec::new();
    if config.get("quantization").is_some() {
        modules.push(("mlp.gate.gate_proj".to_owned(), vec![experts, hidden]));
        let stacked = gated("mlp.switch_mlp", hidden, inner, MLP_NAMES).into_iter();
        modules.extend(stacked.map(|(name, shape)| (name, [vec![experts], shape].concat())));
    } else {
        modules.push(("mlp.gate".to_owned(), vec![experts, hidden]));
        let expert = |n| gated(&format!("mlp.experts.{n}"), hidden, inner, MLP_NAMES);
        modules.extend((0..experts).flat_map(expert));
    }
    if number("num_shared_experts") > 0 {
        let inner = number("moe_shared_expert_intermediate_size");
        modules.extend(gated("mlp.shared_experts", hidden, inner, MLP_NAMES));
    }
    modules
}
