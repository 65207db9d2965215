//! Models that cannot be loaded: the process ends with an error that names
//! what is wrong, before it listens.

use std::{fs, path::Path};

use e2e::{run, tiny_config};
use serde_json::{Value, json};

/// Exit must be non-zero; returns what was printed.
fn fails(model_path: &Path) -> String {
    let path = model_path.to_str().unwrap();
    let args = ["--model-path", path, "--input-ids", "1", "--max-new-tokens", "1"];
    let output = run("generate", &args).unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    printed
}

fn folder_with(config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// A safetensors file with `header`, followed by `len` zero bytes.
fn write_safetensors(path: &Path, header: &Value, len: usize) {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; len]);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_folder_that_is_not_there() {
    let printed = fails(Path::new("/no/such/folder"));
    assert!(printed.contains("/no/such/folder"), "{printed}");
}

#[test]
fn a_folder_without_weights() {
    let folder = folder_with(&tiny_config());
    let printed = fails(folder.path());
    assert!(printed.contains("safetensors"), "{printed}");
}

#[test]
fn an_index_that_names_a_missing_file() {
    let folder = folder_with(&tiny_config());
    let index =
        json!({ "weight_map": { "model.norm.weight": "model-00001-of-00001.safetensors" } });
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let printed = fails(folder.path());
    assert!(printed.contains("model-00001-of-00001.safetensors"), "{printed}");
}

#[test]
fn a_truncated_file() {
    let folder = folder_with(&tiny_config());
    let file = folder.path().join("model.safetensors");
    let header = json!({
        "model.norm.weight": { "dtype": "F32", "shape": [64], "data_offsets": [0, 256] },
    });
    write_safetensors(&file, &header, 100);
    let printed = fails(folder.path());
    assert!(printed.contains("model.safetensors"), "{printed}");
}

#[test]
fn a_weight_that_is_missing() {
    let folder = folder_with(&tiny_config());
    let header = json!({
        "model.norm.weight": { "dtype": "F32", "shape": [64], "data_offsets": [0, 256] },
    });
    write_safetensors(&folder.path().join("model.safetensors"), &header, 256);
    let printed = fails(folder.path());
    // The full name of any of those that are not there.
    assert!(printed.contains("model.layers.0."), "{printed}");
    assert!(printed.contains("missing"), "{printed}");
}

#[test]
fn an_unknown_architecture_lists_the_known() {
    let mut config = tiny_config();
    config["architectures"] = json!(["BloomForCausalLM"]);
    config["model_type"] = json!("bloom");
    let folder = folder_with(&config);
    let header = json!({
        "word_embeddings.weight": { "dtype": "F32", "shape": [64], "data_offsets": [0, 256] },
    });
    write_safetensors(&folder.path().join("model.safetensors"), &header, 256);
    let printed = fails(folder.path());
    for name in ["BloomForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"] {
        assert!(printed.contains(name), "{name} is not in {printed}");
    }
}

#[test]
fn a_config_that_is_no_json() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{ not json").unwrap();
    let printed = fails(folder.path());
    assert!(printed.contains("config.json"), "{printed}");
}
