//! A Qwen3.5 of toy size, recurrent layers beside one with attention, with weights from
//! a formula.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde_json::json;

use crate::model_folder::{Tensor, write_json, write_safetensors};

const HIDDEN: usize = 64;
const VOCAB: usize = 256;
const INNER: usize = 96;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const KEY_HEADS: usize = 2;
const VALUE_HEADS: usize = 4;
const STATE_DIM: usize = 16;
const TAPS: usize = 4;
const LAYERS: usize = 4;

/// Writes the model, without a tokenizer, into the folder `target`.
pub fn tiny_hybrid(target: &Path) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        tensors.insert(name.to_owned(), tensor(name, shape));
    };
    add("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
    add("model.norm.weight", &[HIDDEN]);
    for layer in 0..LAYERS {
        for (name, shape) in modules(layer) {
            add(&format!("model.layers.{layer}.{name}"), &shape);
        }
    }
    write_json(
        &target.join("config.json"),
        &json!({
            "architectures": ["Qwen3_5ForCausalLM"],
            "model_type": "qwen3_5",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "vocab_size": VOCAB,
            "rms_norm_eps": 1e-6,
            "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 },
            "max_position_embeddings": 4096,
            "linear_num_key_heads": KEY_HEADS,
            "linear_num_value_heads": VALUE_HEADS,
            "linear_key_head_dim": STATE_DIM,
            "linear_value_head_dim": STATE_DIM,
            "linear_conv_kernel_dim": TAPS,
            "full_attention_interval": LAYERS,
            "tie_word_embeddings": true,
            "torch_dtype": "float32",
        }),
    )?;
    write_safetensors(&target.join("model.safetensors"), &tensors)
}

fn modules(layer: usize) -> Vec<(&'static str, Vec<usize>)> {
    let (keys, values) = (KEY_HEADS * STATE_DIM, VALUE_HEADS * STATE_DIM);
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let mut all = vec![
        ("input_layernorm.weight", vec![HIDDEN]),
        ("post_attention_layernorm.weight", vec![HIDDEN]),
        ("mlp.gate_proj.weight", vec![INNER, HIDDEN]),
        ("mlp.up_proj.weight", vec![INNER, HIDDEN]),
        ("mlp.down_proj.weight", vec![HIDDEN, INNER]),
    ];
    if layer + 1 == LAYERS {
        all.extend([
            ("self_attn.q_proj.weight", vec![2 * q, HIDDEN]),
            ("self_attn.k_proj.weight", vec![kv, HIDDEN]),
            ("self_attn.v_proj.weight", vec![kv, HIDDEN]),
            ("self_attn.o_proj.weight", vec![HIDDEN, q]),
            ("self_attn.q_norm.weight", vec![HEAD_DIM]),
            ("self_attn.k_norm.weight", vec![HEAD_DIM]),
        ]);
        return all;
    }
    all.extend([
        ("linear_attn.in_proj_qkv.weight", vec![2 * keys + values, HIDDEN]),
        ("linear_attn.in_proj_z.weight", vec![values, HIDDEN]),
        ("linear_attn.in_proj_a.weight", vec![VALUE_HEADS, HIDDEN]),
        ("linear_attn.in_proj_b.weight", vec![VALUE_HEADS, HIDDEN]),
        ("linear_attn.out_proj.weight", vec![HIDDEN, values]),
        ("linear_attn.norm.weight", vec![STATE_DIM]),
        ("linear_attn.conv1d.weight", vec![2 * keys + values, TAPS, 1]),
        ("linear_attn.A_log", vec![VALUE_HEADS]),
        ("linear_attn.dt_bias", vec![VALUE_HEADS]),
    ]);
    all
}

/// Norms about one; states that last for some hundred tokens; the rest about zero.
pub(crate) fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let mut state = name
        .bytes()
        .fold(7_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    let mut unit = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let value = |unit: f32| match name {
        _ if name.ends_with("norm.weight") => 1.0 + 0.2 * unit,
        _ if name.ends_with("A_log") => unit - 4.0,
        _ if name.contains("embed") => unit,
        _ => 0.3 * unit,
    };
    let bytes = (0..shape.iter().product()).flat_map(|_| value(unit()).to_le_bytes()).collect();
    Tensor { dtype: "F32", shape: shape.to_vec(), bytes }
}
