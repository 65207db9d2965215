//! Tensors of Llama 4, see `llama4` in `tools/oracle/tiny_models.py`.

use serde_json::Value;

use super::{MLP_NAMES, Modules, gated};

pub(super) fn shapes(config: &Value) -> Modules {
    let is_packed = config.get("quantization").is_some();
    let (text, prefix, head) = match config.get("text_config") {
        Some(text) => (text, "language_model.", "lm_head"),
        None => (config, "", "output"),
    };
    let number = |field: &str| text[field].as_u64().unwrap() as usize;
    let (hidden, vocab) = (number("hidden_size"), number("vocab_size"));
    let mut shapes = vec![
        (format!("{prefix}model.embed_tokens.weight"), vec![vocab, hidden]),
        (format!("{prefix}model.norm.weight"), vec![hidden]),
    ];
    if text["tie_word_embeddings"] != true {
        shapes.push((format!("{prefix}{head}.weight"), vec![vocab, hidden]));
    }
    for layer in 0..number("num_hidden_layers") {
        let norms = ["input", "post_attention"];
        let mut tensors =
            norms.map(|norm| (format!("{norm}_layernorm.weight"), vec![hidden])).to_vec();
        tensors.extend(attention(text));
        let step = number("interleave_moe_layer_step");
        tensors.extend(match number("num_local_experts") > 0 && (layer + 1) % step == 0 {
            true => experts(text, is_packed),
            false => {
                let inner = number("intermediate_size_mlp");
                weights(gated("feed_forward", hidden, inner, MLP_NAMES))
            }
        });
        let below = |(name, shape)| (format!("{prefix}model.layers.{layer}.{name}"), shape);
        shapes.extend(tensors.into_iter().map(below));
    }
    shapes
}

fn weights(modules: Modules) -> Modules {
    modules.into_iter().map(|(name, shape)| (format!("{name}.weight"), shape)).collect()
}

fn attention(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, head_dim) = (number("hidden_size"), number("head_dim"));
    let q = number("num_attention_heads") * head_dim;
    let kv = number("num_key_value_heads") * head_dim;
    let modules = [("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)];
    let tensors = modules.into_iter().flat_map(|(name, rows, width)| {
        let module = format!("self_attn.{name}_proj");
        let bias =
            (config["attention_bias"] == true).then(|| (format!("{module}.bias"), vec![rows]));
        [(format!("{module}.weight"), vec![rows, width])].into_iter().chain(bias)
    });
    tensors.collect()
}

/// As published, or as mlx-lm writes them.
fn experts(config: &Value, is_packed: bool) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, inner) = (number("hidden_size"), number("intermediate_size"));
    let experts = number("num_local_experts");
    let mut tensors = weights(gated("feed_forward.shared_expert", hidden, inner, MLP_NAMES));
    tensors.push(("feed_forward.router.weight".to_owned(), vec![experts, hidden]));
    let at = "feed_forward.experts";
    tensors.extend(match is_packed {
        true => {
            let stack =
                |(name, shape): (String, Vec<usize>)| (name, [vec![experts], shape].concat());
            weights(gated(at, hidden, inner, MLP_NAMES)).into_iter().map(stack).collect()
        }
        false => vec![
            (format!("{at}.gate_up_proj"), vec![experts, hidden, 2 * inner]),
            (format!("{at}.down_proj"), vec![experts, inner, hidden]),
        ],
    });
    tensors
}
