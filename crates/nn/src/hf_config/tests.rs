//! Fields of config.json, present, absent and wrong.

use serde::Deserialize;
use serde_json::json;

use super::*;

fn config(value: Value) -> HfConfig {
    HfConfig::from_json(&value.to_string()).unwrap()
}

#[test]
fn shared_fields() {
    let parsed = config(json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "eos_token_id": [128001, 128009], "max_position_embeddings": 4096,
        "quantization": {"group_size": 64, "bits": 4},
    }));
    assert_eq!(parsed.architectures(), ["LlamaForCausalLM"]);
    assert_eq!(parsed.model_type(), Some("llama"));
    assert_eq!(parsed.dtype(), Some(Dtype::Bfloat16));
    assert_eq!(parsed.eos_token_ids(), [128_001, 128_009]);
    assert_eq!(parsed.context_length(), 4096);
    assert_eq!(parsed.quant().default_spec().unwrap().group_size, 64);
    assert_eq!(config(json!({"eos_token_id": 2, "dtype": "torch.float16"})).eos_token_ids(), [2]);
    assert_eq!(config(json!({"dtype": "float16"})).dtype(), Some(Dtype::Float16));
}

#[test]
fn absent_fields_have_defaults() {
    let parsed = config(json!({"eos_token_id": null}));
    assert!(parsed.architectures().is_empty() && parsed.eos_token_ids().is_empty());
    assert_eq!((parsed.dtype(), parsed.model_type()), (None, None));
    assert_eq!(parsed.context_length(), 2048);
}

#[test]
fn rope_scaling_stretches_unless_it_names_its_origin() {
    let length = |scaling| {
        config(json!({"max_position_embeddings": 4096, "rope_scaling": scaling})).context_length()
    };
    assert_eq!(length(json!(null)), 4096);
    assert_eq!(length(json!({"type": "linear", "factor": 4.0})), 16384);
    assert_eq!(length(json!({"type": "dynamic", "factor": 2.5})), 10240);
    assert_eq!(length(json!({"rope_type": "llama3", "factor": 32.0})), 4096);
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024});
    assert_eq!(length(yarn), 4096);
    assert_eq!(config(json!({"model_max_length": 1e30})).context_length(), u32::MAX as usize);
}

#[test]
fn text_config_is_looked_into() {
    let nested =
        json!({"text_config": {"max_position_embeddings": 512, "eos_token_id": 7, "a": 1}});
    let parsed = config(nested);
    assert_eq!((parsed.context_length(), parsed.eos_token_ids()), (512, &[7][..]));
    assert_eq!(parsed.text_config().get("a"), Some(&json!(1)));
}

#[test]
fn overrides_replace_top_level_fields() {
    let text = r#"{"a": {"x": 1}, "max_position_embeddings": 64}"#;
    let parsed = HfConfig::with_overrides(text, r#"{"a": 3, "max_position_embeddings": 128}"#);
    let parsed = parsed.unwrap();
    assert_eq!((parsed.get("a"), parsed.context_length()), (Some(&json!(3)), 128));
    let error = HfConfig::with_overrides("{}", "[1]").unwrap_err().to_string();
    assert!(error.starts_with("--json-model-override-args: JSON: invalid type"), "{error}");
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Act {
    Silu,
}

#[derive(Debug, Deserialize)]
struct Fields {
    limit: f64,
    limits: Vec<f32>,
    act: Option<Act>,
    absent: Option<usize>,
    nested: Nested,
}

#[derive(Debug, Deserialize)]
struct Nested {
    size: usize,
}

#[test]
fn tagged_floats_and_typed_fields() {
    let inf = json!({"__float__": "-Infinity"});
    let fields = json!({"limit": inf, "limits": [1.5, {"__float__": "NaN"}], "act": "silu",
        "absent": null, "nested": {"size": 3, "unknown": {}}, "unknown": [1, {"b": 2}]});
    let parsed: Fields = config(fields).parse().unwrap();
    assert_eq!(parsed.limit, f64::NEG_INFINITY);
    assert!(parsed.limits[0] == 1.5 && parsed.limits[1].is_nan());
    assert_eq!((parsed.act, parsed.absent, parsed.nested.size), (Some(Act::Silu), None, 3));
}

/// As Python writes them, which is no JSON.
#[test]
fn bare_infinities_are_numbers() {
    let text = r#"{"limit": -Infinity, "limits": [0.0, Infinity,NaN], "nested": {"size": 1},
        "Infinity": "a \"NaN\" and -Infinity \\"}"#;
    let config = HfConfig::from_json(text).unwrap();
    let parsed: Fields = config.parse().unwrap();
    assert_eq!((parsed.limit, parsed.limits[1]), (f64::NEG_INFINITY, f32::INFINITY));
    assert!(parsed.limits[2].is_nan());
    assert_eq!(config.get("Infinity").unwrap(), r#"a "NaN" and -Infinity \"#);
    for text in [r#"{"limit": Infinity"#, r#"{"NaN"#, r#"{"limit": Infinity2}"#] {
        let error = HfConfig::from_json(text).unwrap_err().to_string();
        assert!(error.starts_with("config.json: JSON: "), "{text}: {error}");
    }
}

#[test]
fn errors_name_the_field() {
    let error = |fields: Value| config(fields).parse::<Fields>().unwrap_err().to_string();
    let base = |size: Value| json!({"limit": 1, "limits": [], "nested": {"size": size}});
    let text = error(base(json!("big")));
    assert!(text.starts_with("config.json: nested.size: invalid type: string \"big\""), "{text}");
    let text = error(json!({"limit": 1, "limits": []}));
    assert!(text.contains("missing field `nested`"), "{text}");
    let text = error(json!({"limit": 1, "limits": [], "act": "gelu2", "nested": {"size": 1}}));
    assert!(text.starts_with("config.json: act: unknown variant `gelu2`"), "{text}");
    for (fields, name) in [
        (json!({"eos_token_id": "x"}), "eos_token_id"),
        (json!({"eos_token_id": -1}), "eos_token_id"),
        (json!({"architectures": "Llama"}), "architectures"),
        (json!({"max_position_embeddings": "long"}), "max_position_embeddings"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings"),
    ] {
        let text = HfConfig::from_json(&fields.to_string()).unwrap_err().to_string();
        assert!(text.starts_with(&format!("config.json: {name}: ")), "{text}");
    }
    assert!(HfConfig::from_json("{").unwrap_err().to_string().starts_with("config.json: JSON: "));
}

#[test]
fn generation_config() {
    let text = r#"{"eos_token_id": [1, 2], "temperature": 0.6, "top_k": 20, "top_p": 0.95,
                   "min_p": null, "transformers_version": "4.51.0"}"#;
    let parsed = GenerationConfig::from_json(text).unwrap();
    assert_eq!(parsed.eos_token_ids, Some(vec![1, 2]));
    assert_eq!((parsed.temperature, parsed.top_k, parsed.top_p), (Some(0.6), Some(20), Some(0.95)));
    assert_eq!((parsed.min_p, parsed.repetition_penalty), (None, None));
    let error = GenerationConfig::from_json(r#"{"top_k": "x"}"#).unwrap_err().to_string();
    assert!(error.starts_with("generation_config.json: top_k: "), "{error}");
}

#[test]
fn the_text_side_is_a_config_of_its_own() {
    let config = HfConfig::from_json(
        r#"{"model_type": "mistral3", "quantization": {"bits": 4}, "torch_dtype": "bfloat16",
            "text_config": {"model_type": "ministral3", "hidden_size": 8, "torch_dtype": "float16"}}"#,
    )
    .unwrap();
    let text = config.text().unwrap();
    assert_eq!(text.model_type(), Some("ministral3"));
    assert_eq!(text.quant(), config.quant());
    assert_eq!(text.dtype(), Some(mlx::Dtype::Float16));
    // A config without such a part is all text.
    let plain = HfConfig::from_json(r#"{"model_type": "llama"}"#).unwrap();
    assert_eq!(plain.text().unwrap(), plain);
}
