//! A Gemma 3 of toy size, two layers of three with a window, with weights from a formula.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use serde_json::json;

use crate::{
    model_folder::{write_json, write_safetensors},
    tiny_hybrid::tensor,
};

const HIDDEN: usize = 64;
const VOCAB: usize = 256;
const INNER: usize = 96;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const LAYERS: usize = 3;

/// Writes the model, without a tokenizer, into the folder `target`. Its window is so many
/// tokens; its K and V of one token take 256 bytes a layer in f32.
pub fn tiny_windows(target: &Path, window: usize) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        tensors.insert(name.to_owned(), tensor(name, shape));
    };
    add("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
    add("model.norm.weight", &[HIDDEN]);
    // A tied head would repeat its input.
    add("lm_head.weight", &[VOCAB, HIDDEN]);
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    for layer in 0..LAYERS {
        let modules: [(&str, &[usize]); 13] = [
            ("input_layernorm", &[HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("pre_feedforward_layernorm", &[HIDDEN]),
            ("post_feedforward_layernorm", &[HIDDEN]),
            ("mlp.gate_proj", &[INNER, HIDDEN]),
            ("mlp.up_proj", &[INNER, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, INNER]),
            ("self_attn.q_proj", &[q, HIDDEN]),
            ("self_attn.k_proj", &[kv, HIDDEN]),
            ("self_attn.v_proj", &[kv, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, q]),
            ("self_attn.q_norm", &[HEAD_DIM]),
            ("self_attn.k_norm", &[HEAD_DIM]),
        ];
        for (name, shape) in modules {
            add(&format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    write_json(
        &target.join("config.json"),
        &json!({
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "vocab_size": VOCAB,
            "query_pre_attn_scalar": HEAD_DIM,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "sliding_window": window,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "max_position_embeddings": 4096,
            "tie_word_embeddings": false,
            "torch_dtype": "float32",
        }),
    )?;
    write_safetensors(&target.join("model.safetensors"), &tensors)
}
