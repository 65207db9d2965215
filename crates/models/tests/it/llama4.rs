//! What Llama 4's configs may say, beyond the goldens.

use mlx::{Array, Dtype};
use nn::{LoadOptions, Unpack};
use serde_json::{Value, json};

use crate::{
    refusals::refusal_of,
    runner::{Runner, distance},
    tiny::{checkpoint, golden, load},
};

const OPTIONS: LoadOptions = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Always };

/// Chunks of the layers of a golden with some fields of its config changed.
fn chunks(name: &str, fields: &Value) -> Vec<Option<usize>> {
    let mut config = golden(name).config;
    for (field, value) in fields.as_object().unwrap() {
        config[field] = value.clone();
    }
    let model = load(&config, &checkpoint(&config), OPTIONS).unwrap();
    model.kv_layout().iter().map(|layer| layer.attention_chunk).collect()
}

#[test]
fn chunks_are_where_the_config_has_them() {
    assert_eq!(chunks("llama4", &json!({})), [Some(8), Some(8), Some(8), None, Some(8)]);
    assert_eq!(chunks("llama4-text-nope-q4", &json!({})), [Some(512), None, Some(512), None]);
    assert_eq!(chunks("llama4-text", &json!({"attention_chunk_size": null})), [None; 4]);
    let longer = json!({"no_rope_layers": [1, 1, 0, 1, 1, 0]});
    assert_eq!(chunks("llama4-text", &longer), [Some(512), Some(512), None, Some(512)]);
    let listed = json!({"layer_types":
        ["full_attention", "chunked_attention", "full_attention", "full_attention"]});
    assert_eq!(chunks("llama4-text", &listed), [None, Some(512), None, None]);
}

#[test]
fn config_values_that_are_refused() {
    let cases = [
        (
            json!({"moe_layers": [1], "num_local_experts": 4, "num_experts_per_tok": 2}),
            "num_experts_per_tok \"2\" is not supported",
        ),
        (json!({"moe_layers": [1]}), "config.json: num_local_experts: must be positive"),
        (json!({"attention_chunk_size": 0}), "config.json: attention_chunk_size: must be positive"),
        (
            json!({"attention_chunk_size": null, "layer_types": vec!["chunked_attention"; 4]}),
            "config.json: attention_chunk_size: missing",
        ),
        (json!({"layer_types": vec!["sliding_attention"; 4]}), "config.json: layer_types"),
        (json!({"no_rope_layers": [1]}), "config.json: no_rope_layers: 1 entries for 4"),
        (json!({"no_rope_layer_interval": 0}), "config.json: no_rope_layer_interval: must be"),
        (json!({"floor_scale": 0.5}), "config.json: floor_scale: 0.5 is not a number of tokens"),
        (json!({"intermediate_size_mlp": 0}), "config.json: intermediate_size_mlp: must be"),
        (
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                "original_max_position_embeddings": 16}}),
            "use_qk_norm \"a rope that scales\" is not supported",
        ),
    ];
    for (fields, expected) in cases {
        let text = refusal_of("llama4-text", fields.clone());
        assert!(text.starts_with(expected), "{fields}: {text}");
    }
}

/// The published folder has eyes beside the text side; transformers calls the head of the
/// text side alone `lm_head`, mlx-lm `output`.
#[test]
fn checkpoints_load_as_published() {
    let published = |name: &str, head: &str, more: &[&str]| {
        let golden = golden(name);
        let tensors = checkpoint(&golden.config).into_iter();
        let mut tensors: std::collections::BTreeMap<_, _> = tensors
            .map(|(name, array)| match name.strip_prefix("output.") {
                Some(rest) => (format!("{head}.{rest}"), array),
                None => (name, array),
            })
            .collect();
        for name in more {
            tensors.insert((*name).to_owned(), Array::zeros(&[2], Dtype::Float32).unwrap());
        }
        let mut runner = Runner::new(load(&golden.config, &tensors, OPTIONS).unwrap(), 4);
        let mut seq = runner.seq(&golden.prompt);
        distance(&runner.prefill(&mut seq, usize::MAX), &golden.logits)
    };
    let eyes = ["vision_model.class_embedding", "multi_modal_projector.linear_1.weight"];
    let off = published("llama4", "output", &eyes);
    assert!(off < 2e-4, "with eyes: logits off by {off}");
    let off = published("llama4-text-nope-q4", "lm_head", &[]);
    assert!(off < 2e-4, "with lm_head: logits off by {off}");
}
