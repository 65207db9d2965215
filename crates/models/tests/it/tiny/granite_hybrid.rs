//! Tensors of Granite with experts or Mamba 2, see `granite_hybrid` in
//! `tools/oracle/tiny_models.py`.

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
        let mut tensors = match config["layer_types"][layer] == "mamba" {
            true => mamba(config),
            false => attention(config),
        };
        let norms = ["input", "post_attention"];
        tensors.extend(norms.map(|norm| (format!("{norm}_layernorm.weight"), vec![hidden])));
        tensors.extend(second_half(config));
        let below = |(name, shape)| (format!("model.layers.{layer}.{name}"), shape);
        shapes.extend(tensors.into_iter().map(below));
    }
    shapes
}

fn linears(at: &str, modules: Modules, has_bias: bool) -> Modules {
    let tensors = |(name, shape): (String, Vec<usize>)| {
        let bias = has_bias.then(|| (format!("{at}{name}.bias"), vec![shape[0]]));
        [(format!("{at}{name}.weight"), shape)].into_iter().chain(bias)
    };
    modules.into_iter().flat_map(tensors).collect()
}

fn mamba(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, heads, taps) =
        (number("hidden_size"), number("mamba_n_heads"), number("mamba_d_conv"));
    let inner = heads * number("mamba_d_head");
    let channels = inner + 2 * number("mamba_n_groups") * number("mamba_d_state");
    let modules = vec![
        ("in_proj".to_owned(), vec![inner + channels + heads, hidden]),
        ("out_proj".to_owned(), vec![hidden, inner]),
    ];
    let mut tensors = linears("mamba.", modules, config["mamba_proj_bias"] == true);
    let conv = match config.get("quantization") {
        Some(_) => vec![channels, taps, 1],
        None => vec![channels, 1, taps],
    };
    tensors.push(("mamba.conv1d.weight".to_owned(), conv));
    if config["mamba_conv_bias"] == true {
        tensors.push(("mamba.conv1d.bias".to_owned(), vec![channels]));
    }
    tensors.push(("mamba.norm.weight".to_owned(), vec![inner]));
    tensors.extend(["A_log", "D", "dt_bias"].map(|name| (format!("mamba.{name}"), vec![heads])));
    tensors
}

fn attention(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let hidden = number("hidden_size");
    let kv = number("num_key_value_heads") * hidden / number("num_attention_heads");
    let rows = [("q", hidden), ("k", kv), ("v", kv), ("o", hidden)];
    let modules = rows.map(|(part, rows)| (format!("{part}_proj"), vec![rows, hidden]));
    linears("self_attn.", modules.into(), config["attention_bias"] == true)
}

/// Gates and values are one matrix as published; mlx-lm takes them apart, except those of
/// MLPs beside experts.
fn second_half(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap_or(0) as usize;
    let (hidden, inner) = (number("hidden_size"), number("intermediate_size"));
    let (experts, shared) = (number("num_local_experts"), number("shared_intermediate_size"));
    let is_packed = config.get("quantization").is_some();
    let whole = |at: &str, inner| {
        let shapes = [("input", vec![2 * inner, hidden]), ("output", vec![hidden, inner])];
        shapes.map(|(name, shape)| (format!("{at}.{name}_linear"), shape)).to_vec()
    };
    let mut modules = Vec::new();
    if experts > 0 {
        let at = "block_sparse_moe";
        let stacked = match is_packed {
            true => gated(&format!("{at}.switch_mlp"), hidden, inner, MLP_NAMES),
            false => whole(at, inner),
        };
        modules.push((format!("{at}.router.layer"), vec![experts, hidden]));
        let stack = |(name, shape): (String, Vec<usize>)| (name, [vec![experts], shape].concat());
        modules.extend(stacked.into_iter().map(stack));
    }
    if is_packed && experts == 0 {
        modules.extend(gated("mlp", hidden, inner, MLP_NAMES));
    } else if shared > 0 {
        modules.extend(whole("shared_mlp", shared));
    }
    linears("", modules, false)
}
