//! Opening whole models.

use std::fs;

use mlx::Dtype;
use nn::LinearWeight;
use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::{
    Quiet,
    test_files::{PACKED, f32_bytes, safetensors},
};

fn folder(config: &serde_json::Value) -> TempDir {
    let folder = tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("config.json", config.to_string());
    let tensors = safetensors(&[("fc.weight", "F32", &[2, 32], f32_bytes(&[0.5; 64]))]);
    fs::write(folder.path().join("model.safetensors"), tensors).unwrap();
    folder
}

fn open(folder: &TempDir, options: &LoaderOptions) -> Result<LoadedModel, LoadError> {
    let source = ModelSource::resolve(folder.path().to_str().unwrap(), None).unwrap();
    load(&source, options, &Quiet)
}

#[test]
fn a_plain_folder() {
    let folder = folder(&json!({"architectures": ["X"], "eos_token_id": 2}));
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let model = open(&folder, &LoaderOptions::new(PACKED)).unwrap();
    assert_eq!(model.eos_token_ids(), [2]);
    assert_eq!(model.generation_config, GenerationConfig::default());
    assert!(matches!(model.tokenizer, TokenizerSource::Dir(path) if path == folder.path()));
    let values = model.weights.at("fc").take("weight", &[2, 32]).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(values, [0.5; 64]);
    model.weights.finish(&[]).unwrap();

    write("generation_config.json", r#"{"eos_token_id": [3, 4], "temperature": 0.5}"#);
    let options = LoaderOptions {
        override_args: r#"{"architectures": ["Y"]}"#.to_owned(),
        ..LoaderOptions::new(PACKED)
    };
    let model = open(&folder, &options).unwrap();
    assert_eq!(model.config.architectures(), ["Y"]);
    assert_eq!(model.eos_token_ids(), [3, 4]);
    assert_eq!(model.generation_config.temperature, Some(0.5));
}

#[test]
fn a_config_is_refused_before_weights_are_opened() {
    let folder = folder(&json!({"architectures": ["X"]}));
    fs::write(folder.path().join("model.safetensors"), "no weights").unwrap();
    let refuse = |_: &HfConfig| Err(nn::LoadError::Missing { name: "X".to_owned() });
    let options = LoaderOptions { check_config: refuse, ..LoaderOptions::new(PACKED) };
    let error = open(&folder, &options).err().unwrap().to_string();
    assert_eq!(error, "weight X is missing from the checkpoint");
}

#[test]
fn the_quantization_of_the_config_reaches_the_weights() {
    let folder = folder(&json!({"quantization": {"bits": 4, "group_size": 32, "fc": {"bits": 4}}}));
    let model = open(&folder, &LoaderOptions::new(PACKED)).unwrap();
    let error = model.weights.at("fc").linear_parts(32, 2).err().unwrap().to_string();
    assert_eq!(error, "weight fc.scales is missing from the checkpoint");
}

#[test]
fn dummy_weights_need_a_config_only() {
    let folder = folder(&json!({"quantization": {"bits": 4, "group_size": 32}}));
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let options = LoaderOptions { format: LoadFormat::Dummy, ..LoaderOptions::new(PACKED) };
    let model = open(&folder, &options).unwrap();
    let LinearWeight::Quantized { weight, .. } =
        model.weights.at("any").linear_parts(64, 8).unwrap()
    else {
        panic!("dense")
    };
    assert_eq!((weight.shape(), weight.dtype()), (vec![8, 8], Dtype::Uint32));
    model.weights.finish(&[]).unwrap();
    assert!(open(&folder, &LoaderOptions::new(PACKED)).is_err());
}

#[test]
fn a_format_that_does_not_fit_is_refused() {
    let folder = folder(&json!({}));
    let options = LoaderOptions { format: LoadFormat::Gguf, ..LoaderOptions::new(PACKED) };
    let error = open(&folder, &options).err().unwrap().to_string();
    assert!(error.starts_with("--load-format gguf does not fit "), "{error}");
    let gguf = folder.path().join("x.gguf");
    let source = ModelSource::Gguf(gguf);
    let options = LoaderOptions { format: LoadFormat::Safetensors, ..LoaderOptions::new(PACKED) };
    let error = load(&source, &options, &Quiet).err().unwrap().to_string();
    assert!(error.starts_with("--load-format safetensors does not fit "), "{error}");
    let unknown = "pt".parse::<LoadFormat>().unwrap_err().to_string();
    assert_eq!(unknown, "unknown load format \"pt\" (known: auto, safetensors, gguf, dummy)");
    for format in ["auto", "safetensors", "gguf", "dummy"] {
        assert_eq!(format.parse::<LoadFormat>().unwrap().to_string(), format);
    }
}
