//! Tensors of Kimi Linear, see `kimi_linear` in `tools/oracle/tiny_models.py`.

use serde_json::Value;

use super::{MLP_NAMES, Modules, gated, latent_attention};

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
    let recurrent = config["linear_attn_config"]["kda_layers"].as_array().unwrap();
    for layer in 0..number("num_hidden_layers") {
        let mut tensors = match recurrent.contains(&Value::from(layer + 1)) {
            true => delta_attention(config),
            false => {
                let (modules, norms) = latent_attention(config, number("kv_lora_rank"));
                let norms = norms.into_iter().map(|(name, width)| (name, vec![width]));
                weights(modules.into_iter().chain(norms))
            }
        };
        let norms = ["input", "post_attention"];
        tensors.extend(norms.map(|norm| (format!("{norm}_layernorm.weight"), vec![hidden])));
        let is_dense = layer < number("first_k_dense_replace")
            || !layer.is_multiple_of(number("moe_layer_freq"));
        tensors.extend(match is_dense {
            true => weights(gated("mlp", hidden, number("intermediate_size"), MLP_NAMES)),
            false => experts(config),
        });
        let below =
            |(name, shape): (String, Vec<usize>)| (format!("model.layers.{layer}.{name}"), shape);
        shapes.extend(tensors.into_iter().map(below));
    }
    shapes
}

fn weights(modules: impl IntoIterator<Item = (String, Vec<usize>)>) -> Modules {
    modules.into_iter().map(|(name, shape)| (format!("{name}.weight"), shape)).collect()
}

fn delta_attention(config: &Value) -> Modules {
    let linear = &config["linear_attn_config"];
    let number = |field: &str| linear[field].as_u64().unwrap() as usize;
    let (heads, head_dim, taps) =
        (number("num_heads"), number("head_dim"), number("short_conv_kernel_size"));
    let (inner, hidden) = (heads * head_dim, config["hidden_size"].as_u64().unwrap() as usize);
    let mut tensors = Vec::new();
    for part in ["q", "k", "v"] {
        tensors.push((format!("{part}_proj.weight"), vec![inner, hidden]));
        tensors.push(match config.get("quantization") {
            Some(_) => (format!("{part}_conv.conv.weight"), vec![inner, taps, 1]),
            None => (format!("{part}_conv1d.weight"), vec![inner, 1, taps]),
        });
    }
    for part in ["f", "g"] {
        tensors.push((format!("{part}_a_proj.weight"), vec![head_dim, hidden]));
        tensors.push((format!("{part}_b_proj.weight"), vec![inner, head_dim]));
    }
    tensors.push(("b_proj.weight".to_owned(), vec![heads, hidden]));
    tensors.push(("A_log".to_owned(), vec![1, 1, heads, 1]));
    tensors.push(("dt_bias".to_owned(), vec![inner]));
    tensors.push(("o_norm.weight".to_owned(), vec![head_dim]));
    tensors.push(("o_proj.weight".to_owned(), vec![hidden, inner]));
    tensors.into_iter().map(|(name, shape)| (format!("self_attn.{name}"), shape)).collect()
}

/// As published, or as mlx-lm writes them.
fn experts(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, inner) = (number("hidden_size"), number("moe_intermediate_size"));
    let experts = number("num_experts");
    let (at, biased, mut modules) = match config.get("quantization") {
        Some(_) => {
            let stack =
                |(name, shape): (String, Vec<usize>)| (name, [vec![experts], shape].concat());
            let stacked = gated("mlp.switch_mlp", hidden, inner, MLP_NAMES);
            ("mlp", "mlp", stacked.into_iter().map(stack).collect())
        }
        None => {
            let at = "block_sparse_moe";
            let expert = |n| gated(&format!("{at}.experts.{n}"), hidden, inner, ["w1", "w3", "w2"]);
            (at, "block_sparse_moe.gate", (0..experts).flat_map(expert).collect::<Vec<_>>())
        }
    };
    modules.push((format!("{at}.gate"), vec![experts, hidden]));
    if number("num_shared_experts") > 0 {
        let inner = inner * number("num_shared_experts");
        modules.extend(gated(&format!("{at}.shared_experts"), hidden, inner, MLP_NAMES));
    }
    let mut tensors = weights(modules);
    tensors.push((format!("{biased}.e_score_correction_bias"), vec![experts]));
    tensors
}
