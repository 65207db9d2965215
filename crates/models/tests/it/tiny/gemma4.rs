//! Tensors of Gemma 4, as in `gemma4_shapes` of `tools/oracle/tiny_models.py`.

use serde_json::Value;

use super::{MLP_NAMES, Modules, gated};

pub(super) fn shapes(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, vocab, layers) =
        (number("hidden_size"), number("vocab_size"), number("num_hidden_layers"));
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if config["tie_word_embeddings"] != true {
        shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    }
    let width = number("hidden_size_per_layer_input");
    if width > 0 {
        let of_model = [
            ("embed_tokens_per_layer", vec![vocab, layers * width]),
            ("per_layer_model_projection", vec![layers * width, hidden]),
            ("per_layer_projection_norm", vec![width]),
        ];
        shapes.extend(of_model.map(|(name, shape)| (format!("model.{name}.weight"), shape)));
    }
    for index in 0..layers {
        let (weights, bare) = layer(config, index);
        let weights = weights.into_iter().map(|(name, shape)| (format!("{name}.weight"), shape));
        let all = bare.into_iter().chain(weights);
        shapes.extend(all.map(|(name, shape)| (format!("model.layers.{index}.{name}"), shape)));
    }
    shapes
}

/// Modules of a layer with their weights, and tensors that are none.
fn layer(config: &Value, layer: usize) -> (Modules, Modules) {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let hidden = number("hidden_size");
    let is_shared = layer >= number("num_hidden_layers") - number("num_kv_shared_layers");
    let is_wide = is_shared && config["use_double_wide_mlp"] == true;
    let mut weights = attention(config, layer, is_shared);
    let inner = number("intermediate_size") * if is_wide { 2 } else { 1 };
    weights.extend(gated("mlp", hidden, inner, MLP_NAMES));
    let mut norms = vec![
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ];
    let mut bare = vec![("layer_scalar".to_owned(), vec![1])];
    let width = number("hidden_size_per_layer_input");
    if width > 0 {
        weights.push(("per_layer_input_gate".to_owned(), vec![width, hidden]));
        weights.push(("per_layer_projection".to_owned(), vec![hidden, width]));
        norms.push("post_per_layer_input_norm");
    }
    if config["enable_moe_block"] == true {
        norms.extend([
            "pre_feedforward_layernorm_2",
            "post_feedforward_layernorm_1",
            "post_feedforward_layernorm_2",
        ]);
        let (experts, inner) = (number("num_experts"), number("moe_intermediate_size"));
        weights.push(("router.proj".to_owned(), vec![experts, hidden]));
        bare.push(("router.scale".to_owned(), vec![hidden]));
        bare.push(("router.per_expert_scale".to_owned(), vec![experts]));
        if config.get("quantization").is_some() {
            let stacked = gated("experts.switch_glu", hidden, inner, MLP_NAMES).into_iter();
            weights.extend(stacked.map(|(name, shape)| (name, [vec![experts], shape].concat())));
        } else {
            bare.push(("experts.gate_up_proj".to_owned(), vec![experts, 2 * inner, hidden]));
            bare.push(("experts.down_proj".to_owned(), vec![experts, hidden, inner]));
        }
    }
    weights.extend(norms.into_iter().map(|name| (name.to_owned(), vec![hidden])));
    (weights, bare)
}

fn attention(config: &Value, layer: usize, is_shared: bool) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let hidden = number("hidden_size");
    let is_global = match config["layer_types"].get(layer) {
        Some(kind) => kind == "full_attention",
        None => (layer + 1).is_multiple_of(5),
    };
    let keys_are_values = is_global && config["attention_k_eq_v"] == true;
    let head_dim = number(if is_global { "global_head_dim" } else { "head_dim" });
    let heads = if keys_are_values { "num_global_key_value_heads" } else { "num_key_value_heads" };
    let (q, kv) = (number("num_attention_heads") * head_dim, number(heads) * head_dim);
    let mut weights =
        vec![("q_proj", vec![q, hidden]), ("o_proj", vec![hidden, q]), ("q_norm", vec![head_dim])];
    if !is_shared {
        weights.extend([("k_proj", vec![kv, hidden]), ("k_norm", vec![head_dim])]);
        weights.extend((!keys_are_values).then(|| ("v_proj", vec![kv, hidden])));
    }
    weights.into_iter().map(|(name, shape)| (format!("self_attn.{name}"), shape)).collect()
}
