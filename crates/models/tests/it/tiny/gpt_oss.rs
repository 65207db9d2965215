//! Tensors of gpt-oss, as in `gpt_oss` of `tools/oracle/tiny_models.py`. As published, they are
//! those after the import, which joins blocks.

use serde_json::Value;

use super::{MLP_NAMES, Modules, gated};

pub(super) fn shapes(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, vocab) = (number("hidden_size"), number("vocab_size"));
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocab, hidden]),
    ];
    for index in 0..number("num_hidden_layers") {
        let tensors = layer(config).into_iter();
        shapes.extend(tensors.map(|(name, shape)| (format!("model.layers.{index}.{name}"), shape)));
    }
    shapes
}

fn layer(config: &Value) -> Modules {
    let number = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, inner) = (number("hidden_size"), number("intermediate_size"));
    let (heads, experts) = (number("num_attention_heads"), number("num_local_experts"));
    let (q, kv) = (heads * number("head_dim"), number("num_key_value_heads") * number("head_dim"));
    let modules = [
        ("self_attn.q_proj", vec![q, hidden]),
        ("self_attn.k_proj", vec![kv, hidden]),
        ("self_attn.v_proj", vec![kv, hidden]),
        ("self_attn.o_proj", vec![hidden, q]),
        ("mlp.router", vec![experts, hidden]),
    ];
    let mut tensors = vec![
        ("input_layernorm.weight".to_owned(), vec![hidden]),
        ("post_attention_layernorm.weight".to_owned(), vec![hidden]),
        ("self_attn.sinks".to_owned(), vec![heads]),
    ];
    for (name, shape) in modules {
        tensors.push((format!("{name}.bias"), vec![shape[0]]));
        tensors.push((format!("{name}.weight"), shape));
    }
    let at = "mlp.experts";
    let (stacks, separator) = match config.get("quantization_config") {
        None => (gated(at, hidden, inner, MLP_NAMES), '.'),
        Some(_) => {
            let rows = [("gate_up_proj", [2 * inner, hidden]), ("down_proj", [hidden, inner])];
            (rows.map(|(name, shape)| (format!("{at}.{name}"), shape.to_vec())).into(), '_')
        }
    };
    for (name, shape) in stacks {
        tensors.push((format!("{name}{separator}bias"), vec![experts, shape[0]]));
        tensors.push((format!("{name}.weight"), [vec![experts], shape].concat()));
    }
    tensors
}
