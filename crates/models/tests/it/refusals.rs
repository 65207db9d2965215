//! Configs and checkpoints that must not load, by name of what is wrong.

use mlx::{Array, Dtype};
use nn::{LoadError, LoadOptions, Unpack};
use serde_json::{Value, json};

use crate::tiny::{checkpoint, golden, load};

const OPTIONS: LoadOptions = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Always };

/// The error of loading `plain` with some fields of its config changed.
fn refusal(fields: Value) -> String {
    refusal_of("plain", fields)
}

pub(crate) fn refusal_of(name: &str, fields: Value) -> String {
    let mut config = golden(name).config;
    let tensors = checkpoint(&config);
    for (field, value) in fields.as_object().unwrap() {
        config[field] = value.clone();
    }
    load(&config, &tensors, OPTIONS).err().unwrap().to_string()
}

#[test]
fn config_values_that_change_the_graph() {
    let cases = [
        (json!({"hidden_act": "xielu"}), "config.json: hidden_act: unknown variant `xielu`"),
        (json!({"rope_scaling": {"type": "mrope"}}), "rope type \"mrope\" is not supported"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor \"0.5\" is not supported"),
        (json!({"pretraining_tp": 2}), "pretraining_tp \"2\" is not supported"),
        (json!({"num_key_value_heads": 3}), "config.json: num_key_value_heads: 3 does not divide"),
        (json!({"num_attention_heads": 5}), "config.json: num_attention_heads: 5 does not divide"),
        (json!({"num_hidden_layers": 0}), "config.json: num_hidden_layers: must be positive"),
        (json!({"head_dim": 15, "num_key_value_heads": 4}), "rotary width \"15\""),
        (json!({"layer_types": ["full_attention"]}), "config.json: layer_types: 1 entries for 2"),
        (
            json!({"layer_types": ["full_attention", "linear_attention"]}),
            "config.json: layer_types",
        ),
        (
            json!({"layer_types": ["full_attention", "sliding_attention"]}),
            "config.json: sliding_window: missing",
        ),
        (json!({"sliding_window": 0}), "config.json: sliding_window: must be positive or null"),
        (
            json!({"architectures": ["OptForCausalLM"]}),
            "config.json: architectures: OptForCausalLM",
        ),
    ];
    for (fields, expected) in cases {
        let text = refusal(fields.clone());
        assert!(text.starts_with(expected), "{fields}: {text}");
    }
}

#[test]
fn config_values_of_other_families() {
    let cases = [
        ("mixtral", json!({"num_experts_per_tok": 5}), "experts of a token \"5 of 4\""),
        (
            "qwen3-5-alone",
            json!({"linear_num_value_heads": 3}),
            "config.json: linear_num_value_heads: must be a multiple",
        ),
        (
            "qwen3-5-alone",
            json!({"linear_conv_kernel_dim": 1}),
            "config.json: linear_conv_kernel_dim: 1 is not from 2 to 64",
        ),
        ("qwen3-5-alone", json!({"attn_output_gate": false}), "attn_output_gate \"false\""),
        (
            "qwen3-5-alone",
            json!({"full_attention_interval": 2}),
            "config.json: layer_types: layer 1 is not as full_attention_interval says",
        ),
        (
            "qwen3-5-alone",
            json!({"full_attention_interval": 0}),
            "config.json: full_attention_interval: must be positive",
        ),
        (
            "qwen3-next",
            json!({"shared_expert_intermediate_size": 0}),
            "config.json: shared_expert_intermediate_size: must be positive",
        ),
        ("lfm2", json!({"conv_L_cache": 1}), "config.json: conv_L_cache: 1 is not from 2 to 64"),
        ("lfm2", json!({"block_dim": 32}), "config.json: block_dim: 32 is not hidden_size"),
        ("lfm2", json!({"layer_types": ["conv"]}), "config.json: layer_types: 1 entries for 3"),
        ("lfm2", json!({"layer_types": ["conv", "conv", "mamba"]}), "config.json: layer_types"),
        ("mixtral", json!({"num_local_experts": 0}), "config.json: num_local_experts: must be"),
        ("mixtral", json!({"num_key_value_heads": 3}), "config.json: num_key_value_heads: 3 does"),
        (
            "mixtral",
            json!({"num_local_experts": 5}),
            "weight model.layers.0.block_sparse_moe.gate.weight has",
        ),
        (
            "qwen2",
            json!({"layer_types": ["full_attention"]}),
            "config.json: layer_types: 1 entries",
        ),
        ("qwen2", json!({"sliding_window": 0}), "config.json: sliding_window: must be positive"),
        ("qwen2-moe", json!({"num_experts_per_tok": 0}), "experts of a token \"0 of 6\""),
        ("qwen2-moe", json!({"decoder_sparse_step": 0}), "config.json: decoder_sparse_step: must"),
        ("qwen2-moe", json!({"mlp_only_layers": [0]}), "weight model.layers.0.mlp.gate_proj"),
        ("gemma", json!({"attention_bias": true}), "attention_bias \"true\""),
        ("gemma", json!({"hidden_activation": "xielu"}), "config.json: hidden_activation: unknown"),
        ("olmoe", json!({"clip_qkv": 8.0}), "clip_qkv \"8\""),
        ("olmoe", json!({"mlp_bias": true}), "mlp_bias \"true\""),
        ("qwen2-vl", json!({"rope_scaling": {"type": "spiral"}}), "rope type \"spiral\""),
        ("qwen2-vl", json!({"layer_types": ["full_attention"]}), "config.json: layer_types: 1"),
        ("qwen3", json!({"use_sliding_window": true}), "use_sliding_window \"true\""),
        ("qwen3", json!({"head_dim": 15}), "rotary width \"15\""),
    ];
    for (name, fields, expected) in cases {
        let text = refusal_of(name, fields.clone());
        assert!(text.starts_with(expected), "{name} {fields}: {text}");
    }
}

#[test]
fn config_values_of_later_families() {
    let cases = [
        ("deepseek-v2-lite", json!({"kv_lora_rank": 0}), "config.json: kv_lora_rank: must be"),
        ("deepseek-v2-lite", json!({"topk_method": "magic"}), "topk_method \"magic\""),
        ("deepseek-v2-lite", json!({"scoring_func": "relu"}), "scoring_func \"relu\""),
        ("deepseek-v2-lite", json!({"attention_bias": true}), "attention_bias \"true without"),
        ("deepseek-v2-lite", json!({"moe_layer_freq": 0}), "config.json: moe_layer_freq: must be"),
        ("deepseek-v2-groups", json!({"n_group": 3}), "n_group \"3 for 8 experts\""),
        ("deepseek-v3", json!({"topk_method": "greedy"}), "topk_method \"greedy\""),
        ("deepseek-v3", json!({"v_head_dim": 16}), "weight model.layers.0.self_attn.kv_b_proj"),
        ("glm4-moe", json!({"head_dim": 0}), "config.json: head_dim: must be positive"),
        ("glm4-moe", json!({"num_key_value_heads": 3}), "config.json: num_key_value_heads: 3"),
        ("cohere2", json!({"use_parallel_block": false}), "config.json: use_parallel_block: false"),
        ("cohere2", json!({"use_qk_norm": true}), "config.json: use_qk_norm: true is not"),
        ("gemma2", json!({"attn_logit_softcapping": 0}), "config.json: attn_logit_softcapping"),
        ("gemma3", json!({"sliding_window_pattern": 0}), "config.json: sliding_window_pattern"),
        ("gemma3", json!({"layer_types": ["full_attention"]}), "config.json: layer_types: 1"),
        ("granite", json!({"logits_scaling": 0}), "config.json: logits_scaling: must not be"),
        ("smollm3", json!({"no_rope_layer_interval": 0}), "config.json: no_rope_layer_interval"),
        (
            "ministral3",
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0,
                   "original_max_position_embeddings": 0, "llama_4_scaling_beta": 0.1}}),
            "config.json: rope_parameters.original_max_position_embeddings: must be positive",
        ),
        (
            "mistral3",
            json!({"text_config": {"model_type": "mistral4"}}),
            "text_config.model_type \"mistral4\" is not supported",
        ),
    ];
    for (name, fields, expected) in cases {
        let text = refusal_of(name, fields.clone());
        assert!(text.starts_with(expected), "{name} {fields}: {text}");
    }
}

#[test]
fn config_values_of_nemotron_h() {
    let pattern = |pattern: Value| json!({"hybrid_override_pattern": pattern});
    let listed = json!({"layers_block_type": ["mamba", "moe", "mlp", "attention"]});
    let cases = [
        (
            "nemotron-h",
            pattern(json!("ME*x")),
            "config.json: hybrid_override_pattern: no layer is `x`",
        ),
        (
            "nemotron-h",
            pattern(json!("ME*")),
            "config.json: hybrid_override_pattern: 3 entries for 4",
        ),
        (
            "nemotron-h",
            pattern(json!(null)),
            "config.json: hybrid_override_pattern: neither it nor",
        ),
        ("nemotron-h", listed, "config.json: layers_block_type: is not as hybrid_override_pattern"),
        (
            "nemotron-h-dense",
            json!({"layers_block_type": ["mamba", "mlp", "attention", "rwkv"]}),
            "config.json: layers_block_type",
        ),
        ("nemotron-h", json!({"n_groups": 3}), "config.json: n_groups: 3 does not divide mamba_"),
        (
            "nemotron-h",
            json!({"conv_kernel": 1}),
            "config.json: conv_kernel: 1 is not from 2 to 64",
        ),
        ("nemotron-h", json!({"head_dim": 15}), "config.json: head_dim: 15 is odd"),
        ("nemotron-h", json!({"mamba_hidden_act": "relu"}), "mamba_hidden_act \"Relu\""),
        ("nemotron-h", json!({"mlp_hidden_act": "xielu"}), "config.json: mlp_hidden_act: unknown"),
        (
            "nemotron-h",
            json!({"time_step_limit": [1.0, 0.5]}),
            "config.json: time_step_limit: 1 to",
        ),
        ("nemotron-h", json!({"sliding_window": 8}), "sliding_window \"8\""),
        ("nemotron-h", json!({"residual_in_fp32": true}), "residual_in_fp32 \"true\""),
        ("nemotron-h", json!({"tie_word_embeddings": true}), "tie_word_embeddings \"true\""),
        ("nemotron-h", json!({"n_routed_experts": null}), "config.json: n_routed_experts: must be"),
        ("nemotron-h", json!({"num_experts_per_tok": 9}), "experts of a token \"9 of 8\""),
        ("nemotron-h-latent", json!({"n_group": 3}), "n_group \"3 for 8 experts\""),
        ("nemotron-h-latent", json!({"moe_latent_size": 0}), "config.json: moe_latent_size: must"),
    ];
    for (name, fields, expected) in cases {
        let text = refusal_of(name, fields.clone());
        assert!(text.starts_with(expected), "{name} {fields}: {text}");
    }
}

#[test]
fn config_values_of_gpt_oss() {
    let cases = [
        (json!({"attention_bias": false}), "attention_bias \"false\" is not supported"),
        (json!({"hidden_act": "gelu"}), "hidden_act \"gelu\" is not supported"),
        (json!({"tie_word_embeddings": true}), "tie_word_embeddings \"true\" is not supported"),
        (json!({"swiglu_limit": 0.0}), "config.json: swiglu_limit: must be positive"),
        (json!({"sliding_window": 0}), "config.json: sliding_window: must be positive"),
        (json!({"layer_types": ["full_attention"]}), "config.json: layer_types: 1 entries for 3"),
        (json!({"num_experts_per_tok": 7}), "experts of a token \"7 of 6\""),
        (json!({"num_attention_heads": 2}), "weight model.layers.0.self_attn.sinks has shape [4]"),
        (json!({"head_dim": 31}), "rotary width \"31\""),
    ];
    for (fields, expected) in cases {
        let text = refusal_of("gpt-oss", fields.clone());
        assert!(text.starts_with(expected), "{fields}: {text}");
    }
}

#[test]
fn config_values_of_gemma_4() {
    let cases = [
        ("shared", json!({"num_kv_shared_layers": 6}), "config.json: num_kv_shared_layers: 6 of 6"),
        (
            "shared",
            json!({"num_kv_shared_layers": 4}),
            "config.json: num_kv_shared_layers: no layer of the kind before them",
        ),
        ("shared", json!({"vocab_size_per_layer_input": 255}), "config.json: vocab_size_per_layer"),
        ("shared", json!({"global_head_dim": 32}), "weight model.layers.2.self_attn.q_proj"),
        ("shared", json!({"attention_bias": true}), "config.json: attention_bias: true is not"),
        ("shared", json!({"use_bidirectional_attention": "all"}), "use_bidirectional_attention"),
        ("shared", json!({"final_logit_softcapping": 0}), "config.json: final_logit_softcapping"),
        ("shared", json!({"layer_types": ["full_attention"]}), "config.json: layer_types: 1"),
        (
            "shared",
            json!({"global_partial_rotary_factor": 0.5}),
            "config.json: global_partial_rotary_factor: 0.5 where rope_parameters say 0.25",
        ),
        (
            "shared",
            json!({"rope_parameters": {"sliding_attention": {"partial_rotary_factor": 0.5}}}),
            "partial_rotary_factor \"0.5\" is not supported",
        ),
        (
            "shared",
            json!({"rope_parameters": {"rope_type": "default"}}),
            "config.json: rope_parameters.rope_type: unknown field",
        ),
        (
            "shared",
            json!({"per_layer_config": {"2": {"head_dim": 64, "num_key_value_heads": 1}}}),
            "config.json: per_layer_config: layer 2 is not as the other fields say",
        ),
        (
            "dense",
            json!({"num_global_key_value_heads": 3}),
            "config.json: num_global_key_value_heads: 3 does not divide",
        ),
        ("dense", json!({"attention_k_eq_v": false}), "weight model.layers.2.self_attn.k_proj"),
        ("dense", json!({"enable_moe_block": true}), "config.json: num_experts: must be positive"),
        ("moe", json!({"top_k_experts": 9}), "experts of a token \"9 of 8\""),
        ("moe", json!({"hidden_activation": "xielu"}), "config.json: hidden_activation: unknown"),
    ];
    for (name, fields, expected) in cases {
        let text = refusal_of(&format!("gemma4-{name}"), fields.clone());
        assert!(text.starts_with(expected), "{name} {fields}: {text}");
    }
}

#[test]
fn config_values_of_kimi_linear() {
    let linear = |field: &str, value: Value| {
        let mut linear = golden("kimi-linear").config["linear_attn_config"].clone();
        linear[field] = value;
        json!({"linear_attn_config": linear})
    };
    let cases = [
        ("kimi-linear", json!({"q_lora_rank": 8}), "q_lora_rank \"8\""),
        ("kimi-linear", json!({"qk_rope_head_dim": 7}), "config.json: qk_rope_head_dim: 7 is odd"),
        ("kimi-linear", json!({"mla_use_nope": false}), "mla_use_nope \"false\""),
        ("kimi-linear", json!({"moe_router_activation_func": "relu"}), "scoring_func \"relu\""),
        ("kimi-linear", json!({"moe_layer_freq": 0}), "config.json: moe_layer_freq: must be"),
        (
            "kimi-linear-groups",
            json!({"use_grouped_topk": false}),
            "use_grouped_topk \"false with 4",
        ),
        ("kimi-linear", linear("gate_lower_bound", json!(-5.0)), "linear_attn_config.gate_lower_"),
        (
            "kimi-linear",
            linear("kda_layers", json!([1, 2, 5])),
            "config.json: linear_attn_config.kda_layers: 5 is no layer of 4",
        ),
        (
            "kimi-linear",
            linear("full_attn_layers", json!([4])),
            "config.json: linear_attn_config.full_attn_layers: layer 3 is not in just one",
        ),
        (
            "kimi-linear",
            linear("short_conv_kernel_size", json!(1)),
            "config.json: linear_attn_config.short_conv_kernel_size: 1 is not from 2 to 64",
        ),
    ];
    for (name, fields, expected) in cases {
        let text = refusal_of(name, fields.clone());
        assert!(text.starts_with(expected), "{name} {fields}: {text}");
    }
}

#[test]
fn config_values_of_lfm2_with_experts() {
    let cases = [
        (json!({"num_experts": 0}), "config.json: num_experts: must be positive"),
        (json!({"num_experts_per_tok": 9}), "experts of a token \"9 of 8\""),
        (json!({"moe_intermediate_size": 0}), "config.json: moe_intermediate_size: must be"),
        (json!({"routed_scaling_factor": {"__float__": "NaN"}}), "config.json: routed_scaling_"),
        (json!({"use_expert_bias": false}), "the model does not use 2 tensor(s)"),
        (json!({"num_dense_layers": 0}), "weight model.layers.0.feed_forward.expert_bias"),
        (json!({"tie_embedding": false}), "tie_word_embeddings \"false\""),
        (json!({"conv_L_cache": 1}), "config.json: conv_L_cache: 1 is not from 2 to 64"),
    ];
    for (fields, expected) in cases {
        let text = refusal_of("lfm2-moe", fields.clone());
        assert!(text.starts_with(expected), "{fields}: {text}");
    }
}

#[test]
fn config_values_of_granite_4() {
    let cases = [
        ("granite4", json!({"layer_types": ["mamba"]}), "config.json: layer_types: 1 entries for"),
        (
            "granite4",
            json!({"layer_types": ["mamba", "conv", "mamba"]}),
            "config.json: layer_types",
        ),
        (
            "granite4",
            json!({"position_embedding_type": "alibi"}),
            "config.json: position_embedding",
        ),
        ("granite4", json!({"mlp_bias": true}), "mlp_bias \"true\""),
        ("granite4", json!({"logits_scaling": 0}), "config.json: logits_scaling: must not be"),
        ("granite4", json!({"mamba_d_conv": 1}), "config.json: mamba_d_conv: 1 is not from 2 to"),
        ("granite4", json!({"mamba_n_groups": 3}), "config.json: mamba_n_groups: 3 does not"),
        ("granite4", json!({"mamba_n_heads": 0}), "config.json: mamba_n_heads: must be positive"),
        ("granite4", json!({"time_step_limit": [1.0, 0.5]}), "config.json: time_step_limit: 1 to"),
        ("granite4", json!({"num_experts_per_tok": 9}), "experts of a token \"9 of 8\""),
        ("granitemoe", json!({"num_experts_per_tok": 0}), "experts of a token \"0 of 8\""),
        ("granitemoe", json!({"num_hidden_layers": 0}), "config.json: num_hidden_layers: must be"),
    ];
    for (name, fields, expected) in cases {
        let text = refusal_of(name, fields.clone());
        assert!(text.starts_with(expected), "{name} {fields}: {text}");
    }
}

#[test]
fn config_values_of_bailing_moe() {
    let cases = [
        (json!({"use_bias": true}), "use_bias \"true\""),
        (json!({"norm_head": true}), "norm_head \"true\""),
        (json!({"score_function": "relu"}), "scoring_func \"relu\""),
        (json!({"n_group": 3}), "n_group \"3 for 8 experts\""),
        (json!({"topk_group": 5}), "topk_group \"5 of 4\""),
        (json!({"rotary_dim": 18}), "rotary width \"18\""),
        (json!({"num_experts_per_tok": 9}), "experts of a token \"9 of"),
        (json!({"moe_intermediate_size": 0}), "config.json: moe_intermediate_size: must be"),
        (json!({"num_key_value_heads": 3}), "config.json: num_key_value_heads: 3 does not"),
    ];
    for (fields, expected) in cases {
        let text = refusal_of("bailing-moe", fields.clone());
        assert!(text.starts_with(expected), "{fields}: {text}");
    }
}

#[test]
fn config_values_of_minimax() {
    let cases = [
        (json!({"attn_type_list": [1, 0]}), "attn_type_list \"0\""),
        (json!({"attn_type_list": [1]}), "config.json: attn_type_list: 1 entries for 2"),
        (json!({"qk_norm_type": "per_head"}), "qk_norm_type \"per_head\""),
        (json!({"scoring_func": "softmax"}), "scoring_func \"softmax\""),
        (json!({"use_routing_bias": false}), "use_routing_bias \"false\""),
        (json!({"shared_intermediate_size": 64}), "shared_intermediate_size \"64\""),
        (json!({"sliding_window": 8}), "sliding_window \"8\""),
        (json!({"rotary_dim": 15}), "rotary width \"15\""),
        (json!({"rotary_dim": 34}), "rotary width \"34\""),
        (json!({"num_key_value_heads": 3}), "config.json: num_key_value_heads: 3 does not"),
        (json!({"num_experts_per_tok": 9}), "experts of a token \"9 of 8\""),
        (json!({"num_local_experts": 0}), "config.json: num_local_experts: must be positive"),
    ];
    for (fields, expected) in cases {
        let text = refusal_of("minimax", fields.clone());
        assert!(text.starts_with(expected), "{fields}: {text}");
    }
}

/// Projections of layers that use another's, eyes and ears, and a head that is the embedding.
#[test]
fn what_gemma_4_leaves_behind_is_no_mistake() {
    let load_with = |name: &str, more: &[&str]| {
        let config = golden(name).config;
        let mut tensors = checkpoint(&config);
        for name in more {
            tensors.insert((*name).to_owned(), Array::zeros(&[2], Dtype::Float32).unwrap());
        }
        load(&config, &tensors, OPTIONS).map(|_| ()).map_err(|error| error.to_string())
    };
    let shared = ["k_proj.weight", "k_proj.scales", "v_proj.weight", "k_norm.weight"];
    let shared = shared.map(|name| format!("language_model.model.layers.4.self_attn.{name}"));
    let mut more: Vec<&str> = shared.iter().map(String::as_str).collect();
    more.extend([
        "vision_tower.encoder.layers.0.self_attn.k_proj.input_max",
        "model.audio_tower.layers.0.norm.weight",
        "embed_vision.embedding_projection.weight",
        "model.embed_audio.embedding_projection.weight",
        "vision_embedder.patch_dense.weight",
    ]);
    assert_eq!(load_with("gemma4-nested-shared-q4", &more), Ok(()));
    let owned = "language_model.model.layers.2.self_attn.q_proj.bias";
    let error = load_with("gemma4-nested-shared-q4", &[owned]).unwrap_err();
    assert!(error.contains(owned), "{error}");
    let head = "language_model.lm_head.weight";
    assert_eq!(load_with("gemma4-unified-tied", &[head]), Ok(()));
    assert!(load_with("gemma4-nested", &["model.vision_model.w"]).is_err());
}

/// Windows of the layers of a golden with some fields of its config changed.
fn windows(name: &str, fields: &Value) -> Vec<Option<usize>> {
    let mut config = golden(name).config;
    for (field, value) in fields.as_object().unwrap() {
        config[field] = value.clone();
    }
    let model = load(&config, &checkpoint(&config), OPTIONS).unwrap();
    model.kv_layout().iter().map(|layer| layer.sliding_window).collect()
}

#[test]
fn windows_of_other_families() {
    assert_eq!(windows("mixtral", &json!({"sliding_window": 8})), [Some(8), Some(8)]);
    assert_eq!(windows("qwen2", &json!({})), [None, None]);
    assert_eq!(windows("qwen2", &json!({"use_sliding_window": true})), [None, Some(8)]);
    let mixed = json!({"use_sliding_window": true,
        "layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(windows("qwen2-moe", &mixed), [Some(8), None]);
}

#[test]
fn a_window_is_only_mistrals() {
    let window = |fields: Value| windows("plain", &fields);
    let mistral = json!({"model_type": "mistral", "sliding_window": 8});
    assert_eq!(window(mistral), [Some(8), Some(8)]);
    assert_eq!(window(json!({"model_type": "mistral", "sliding_window": null})), [None, None]);
    assert_eq!(window(json!({"sliding_window": 8})), [None, None]);
    let off = json!({"model_type": "mistral", "sliding_window": 8, "use_sliding_window": false});
    assert_eq!(window(off), [None, None]);
    let mixed =
        json!({"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]});
    assert_eq!(window(mixed), [Some(8), None]);
}

#[test]
fn every_tensor_is_needed_once() {
    for name in [
        "bias",
        "q4-g32",
        "tied",
        "mixtral",
        "qwen2-moe-q4",
        "qwen3-tied-q4",
        "gemma4-shared",
        "gemma4-moe-q4",
        "nemotron-h",
        "nemotron-h-q4",
        "kimi-linear",
        "bailing-moe",
        "bailing-moe-q4",
        "granite4",
        "granite4-dense",
        "lfm2-moe",
        "lfm2-moe-q4",
        "minimax",
        "llama4",
        "llama4-q4",
    ] {
        let config = golden(name).config;
        let tensors = checkpoint(&config);
        for name in tensors.keys() {
            let mut without = tensors.clone();
            without.remove(name);
            let error = load(&config, &without, OPTIONS).err().unwrap();
            let named = match &error {
                LoadError::Missing { name: missing } => missing == name,
                // Packed words without scales pass for a matrix of their shape.
                LoadError::LeftOver { names } => {
                    names.iter().any(|left| left.starts_with(stem(name)))
                }
                error => error.to_string().contains(stem(name)),
            };
            assert!(named, "without {name}: {error}");
        }
    }
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').unwrap().0
}

#[test]
fn left_over_and_misshapen_tensors() {
    let config = golden("plain").config;
    let mut tensors = checkpoint(&config);
    let extra = "model.layers.1.self_attn.q_norm.weight";
    tensors.insert(extra.to_owned(), Array::full(&[16], 1.0, Dtype::Float32).unwrap());
    let text = load(&config, &tensors, OPTIONS).err().unwrap().to_string();
    assert!(text.contains(extra), "{text}");

    tensors.remove(extra);
    tensors
        .insert("model.norm.weight".to_owned(), Array::full(&[65], 1.0, Dtype::Float32).unwrap());
    let text = load(&config, &tensors, OPTIONS).err().unwrap().to_string();
    assert_eq!(text, "weight model.norm.weight has shape [65], the model needs [64]");
}

#[test]
fn what_converters_leave_behind_is_no_mistake() {
    let config = golden("tied").config;
    let mut tensors = checkpoint(&config);
    let ones = |shape: &[usize]| Array::full(shape, 1.0, Dtype::Float32).unwrap();
    tensors.insert("lm_head.weight".to_owned(), ones(&[256, 64]));
    tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), ones(&[8]));
    assert!(load(&config, &tensors, OPTIONS).is_ok());
    for (name, extra) in [
        ("nemotron-h", "mtp.layers.0.eh_proj.weight"),
        ("kimi-linear", "model.mtp.layers.0.eh_proj.weight"),
        ("bailing-moe", "model.layers.3.eh_proj.weight"),
        ("minimax", "model.layers.2.eh_proj.weight"),
        ("qwen2-vl", "visual.blocks.0.attn.qkv.weight"),
        ("qwen3-vl", "vision_tower.blocks.0.attn.qkv.weight"),
    ] {
        let config = golden(name).config;
        let mut tensors = checkpoint(&config);
        tensors.insert(extra.to_owned(), ones(&[8, 8]));
        assert!(load(&config, &tensors, OPTIONS).is_ok(), "{name}");
    }
}
