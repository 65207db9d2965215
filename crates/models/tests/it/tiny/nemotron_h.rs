//! Tensors of Nemotron-H, see `nemotron_h` in `tools/oracle/tiny_models.py`.

use serde_json::Value;

use super::Modules;

pub(super) fn shapes(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, vocab) = (number("hidden_size"), number("vocab_size"));
    let mut shapes = vec![
        ("backbone.embeddings.weight".to_owned(), vec![vocab, hidden]),
        ("backbone.norm_f.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocab, hidden]),
    ];
    for (layer, kind) in layers(config).into_iter().enumerate() {
        let at = format!("backbone.layers.{layer}");
        shapes.push((format!("{at}.norm.weight"), vec![hidden]));
        let tensors = match kind {
            'M' => mamba(config),
            '*' => attention(config),
            '-' => ungated("", [hidden, number("intermediate_size")], config["mlp_bias"] == true),
            _ => experts(config),
        };
        let below = |(name, shape): (String, Vec<usize>)| (format!("{at}.mixer.{name}"), shape);
        shapes.extend(tensors.into_iter().map(below));
    }
    shapes
}

fn layers(config: &Value) -> Vec<char> {
    if let Some(row) = config["hybrid_override_pattern"].as_str() {
        return row.chars().collect();
    }
    let listed = config["hybrid_override_pattern"].as_array();
    let listed = listed.or(config["layers_block_type"].as_array()).unwrap().iter();
    let letter = |kind: &Value| match kind.as_str().unwrap() {
        "M" | "mamba" => 'M',
        "*" | "attention" => '*',
        "-" | "mlp" => '-',
        _ => 'E',
    };
    listed.map(letter).collect()
}

fn linear(name: &str, [rows, columns]: [usize; 2], has_bias: bool) -> Modules {
    let bias = has_bias.then(|| (format!("{name}.bias"), vec![rows]));
    [(format!("{name}.weight"), vec![rows, columns])].into_iter().chain(bias).collect()
}

fn ungated(at: &str, [hidden, inner]: [usize; 2], has_bias: bool) -> Modules {
    let up = linear(&format!("{at}up_proj"), [inner, hidden], has_bias);
    [up, linear(&format!("{at}down_proj"), [hidden, inner], has_bias)].concat()
}

fn mamba(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, heads, taps) =
        (number("hidden_size"), number("mamba_num_heads"), number("conv_kernel"));
    let inner = heads * number("mamba_head_dim");
    let channels = inner + 2 * number("n_groups") * number("ssm_state_size");
    let bias = config["mamba_proj_bias"] == true;
    let mut tensors = linear("in_proj", [inner + channels + heads, hidden], bias);
    tensors.extend(linear("out_proj", [hidden, inner], bias));
    let conv = match config.get("quantization") {
        Some(_) => vec![channels, taps, 1],
        None => vec![channels, 1, taps],
    };
    tensors.push(("conv1d.weight".to_owned(), conv));
    if config["use_conv_bias"] == true {
        tensors.push(("conv1d.bias".to_owned(), vec![channels]));
    }
    tensors.push(("norm.weight".to_owned(), vec![inner]));
    tensors.extend(["A_log", "D", "dt_bias"].map(|name| (name.to_owned(), vec![heads])));
    tensors
}

fn attention(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().map(|value| value as usize);
    let required = |field: &str| number(field).unwrap();
    let (hidden, heads) = (required("hidden_size"), required("num_attention_heads"));
    let head_dim = number("head_dim").unwrap_or(hidden / heads);
    let (q, kv) = (heads * head_dim, required("num_key_value_heads") * head_dim);
    let shapes = [("q", [q, hidden]), ("k", [kv, hidden]), ("v", [kv, hidden]), ("o", [hidden, q])];
    let bias = config["attention_bias"] == true;
    shapes.iter().flat_map(|(part, shape)| linear(&format!("{part}_proj"), *shape, bias)).collect()
}

fn experts(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().map(|value| value as usize);
    let required = |field: &str| number(field).unwrap();
    let (hidden, bias) = (required("hidden_size"), config["mlp_bias"] == true);
    let (experts, inner) = (required("n_routed_experts"), required("moe_intermediate_size"));
    let width = number("moe_latent_size").unwrap_or(hidden);
    let mut tensors = linear("gate", [experts, hidden], false);
    tensors.push(("gate.e_score_correction_bias".to_owned(), vec![experts]));
    if config.get("moe_latent_size").is_some() {
        tensors.extend(linear("fc1_latent_proj", [width, hidden], bias));
        tensors.extend(linear("fc2_latent_proj", [hidden, width], bias));
    }
    if config.get("quantization").is_some() {
        tensors.push(("switch_mlp.fc1.weight".to_owned(), vec![experts, inner, width]));
        tensors.push(("switch_mlp.fc2.weight".to_owned(), vec![experts, width, inner]));
    } else {
        let expert = |n| ungated(&format!("experts.{n}."), [width, inner], false);
        tensors.extend((0..experts).flat_map(expert));
    }
    if number("n_shared_experts").is_some() {
        let inner = required("moe_shared_expert_intermediate_size");
        tensors.extend(ungated("shared_experts.", [hidden, inner], bias));
    }
    tensors
}
