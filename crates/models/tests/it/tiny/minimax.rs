//! Tensors of MiniMax M2, see `minimax` in `tools/oracle/tiny_models.py`.

use serde_json::Value;

use super::{MLP_NAMES, Modules, gated};

pub(super) fn shapes(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, vocab) = (number("hidden_size"), number("vocab_size"));
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if config["tie_word_embeddings"] != true {
        shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    }
    for layer in 0..number("num_hidden_layers") {
        let modules = attention(config).into_iter().chain(experts(config));
        let norms = ["input", "post_attention"];
        let norms = norms.map(|norm| (format!("{norm}_layernorm"), vec![hidden]));
        let tensors = modules.chain(norms).map(|(name, shape)| (format!("{name}.weight"), shape));
        let bias = "block_sparse_moe.e_score_correction_bias".to_owned();
        let all = tensors.chain([(bias, vec![number("num_local_experts")])]);
        shapes.extend(all.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
    }
    shapes
}

fn attention(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().map(|value| value as usize);
    let required = |field: &str| number(field).unwrap();
    let (hidden, heads) = (required("hidden_size"), required("num_attention_heads"));
    let head_dim = number("head_dim").unwrap_or(hidden / heads);
    let (q, kv) = (heads * head_dim, required("num_key_value_heads") * head_dim);
    let mut modules = vec![
        ("q_proj", vec![q, hidden]),
        ("k_proj", vec![kv, hidden]),
        ("v_proj", vec![kv, hidden]),
        ("o_proj", vec![hidden, q]),
    ];
    if config["use_qk_norm"] == true {
        modules.extend([("q_norm", vec![q]), ("k_norm", vec![kv])]);
    }
    modules.into_iter().map(|(name, shape)| (format!("self_attn.{name}"), shape)).collect()
}

/// One by one as published, or stacked as mlx-lm writes them.
fn experts(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, inner) = (number("hidden_size"), number("intermediate_size"));
    let (at, experts) = ("block_sparse_moe", number("num_local_experts"));
    let mut modules = vec![(format!("{at}.gate"), vec![experts, hidden])];
    if config.get("quantization").is_some() {
        let stacked = gated(&format!("{at}.switch_mlp"), hidden, inner, MLP_NAMES).into_iter();
        modules.extend(stacked.map(|(name, shape)| (name, [vec![experts], shape].concat())));
        return modules;
    }
    let expert = |n| gated(&format!("{at}.experts.{n}"), hidden, inner, ["w1", "w3", "w2"]);
    modules.extend((0..experts).flat_map(expert));
    modules
}
