//! Shards, indexes that lie, and chat templates.

use std::fs;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::test_files::{PACKED, Raw, f32_bytes, folder_error, safetensors, weights};

fn shard(folder: &TempDir, name: &str, tensors: &[Raw<'_>]) {
    fs::write(folder.path().join(name), safetensors(tensors)).unwrap();
}

fn one(name: &str) -> Raw<'_> {
    (name, "F32", &[1], f32_bytes(&[name.len() as f32]))
}

fn index(folder: &TempDir, weight_map: Value) {
    fs::write(folder.path().join(INDEX), json!({"weight_map": weight_map}).to_string()).unwrap();
}

#[test]
fn shards_come_from_the_index_or_from_their_names() {
    let folder = tempdir().unwrap();
    shard(&folder, "model-00001-of-00002.safetensors", &[one("a")]);
    shard(&folder, "model-00002-of-00002.safetensors", &[one("bb")]);
    shard(&folder, "consolidated.safetensors", &[one("a")]);
    let names = |folder: &TempDir| {
        let store = open(folder.path(), PACKED, None).unwrap();
        store.names().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&folder), ["a", "bb"]);
    index(&folder, json!({"a": "model-00001-of-00002.safetensors"}));
    assert_eq!(names(&folder), ["a"], "the index rules");
    let weights = weights(open(folder.path(), PACKED, None).unwrap());
    assert_eq!(weights.take("a", &[1]).unwrap().to_vec::<f32>().unwrap(), [1.0]);
}

#[test]
fn an_index_must_be_true() {
    let folder = tempdir().unwrap();
    assert!(folder_error(folder.path()).ends_with("has no model*.safetensors"));
    shard(&folder, "model-1.safetensors", &[one("a")]);
    shard(&folder, "model-2.safetensors", &[one("b")]);
    for (weight_map, expected) in [
        (
            json!({"a": "model-1.safetensors", "b": "model-3.safetensors"}),
            "the index lists model-3.safetensors, which is not there",
        ),
        (
            json!({"a": "model-1.safetensors", "b": "../model-2.safetensors"}),
            "the index lists \"../model-2.safetensors\", which is not a plain file name",
        ),
        (json!({"a": "/etc/passwd"}), "\"/etc/passwd\", which is not a plain file name"),
        (json!({"a": ".."}), "\"..\", which is not a plain file name"),
        (json!({"a": ""}), "\"\", which is not a plain file name"),
        (
            json!({"c": "model-1.safetensors"}),
            "the index says that model-1.safetensors holds c, but it does not",
        ),
        (
            json!({"a": "model-2.safetensors"}),
            "the index says that model-2.safetensors holds a, but it does not",
        ),
        (json!([]), "malformed JSON"),
    ] {
        index(&folder, weight_map);
        let error = folder_error(folder.path());
        assert!(error.contains("index.json: ") && error.contains(expected), "{error}");
    }
    fs::remove_file(folder.path().join(INDEX)).unwrap();
    shard(&folder, "model-2.safetensors", &[one("a")]);
    assert_eq!(folder_error(folder.path()), "weight a occurs twice in the checkpoint");
}
