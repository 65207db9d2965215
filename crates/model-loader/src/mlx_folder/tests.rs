//! What is written can be read, and nothing stays behind of what failed.

use mlx::quantized::{QuantMode, quantize};
use tempfile::TempDir;

use super::*;
use crate::{safetensors, test_files::PACKED};

const SPEC: QuantSpec = QuantSpec { group_size: 32, bits: 4, mode: QuantMode::Affine };

fn numbers(shape: &[usize]) -> Array {
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i: usize| (i * 7 % 61) as f32 / 64.0).collect();
    Array::from_slice(&values, shape).unwrap()
}

fn packed(spec: QuantSpec) -> LinearWeight {
    let parts = quantize(&numbers(&[4, 64]), spec.group_size, spec.bits, spec.mode).unwrap();
    let mlx::quantized::Quantized { weight, scales, biases } = parts;
    LinearWeight::Quantized { weight, scales, biases, spec }
}

fn source() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in [("tokenizer.json", "{}"), ("model.safetensors", "?"), ("notes.txt", "?")] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let tensors = safetensors::open(path).unwrap();
    let entry = |tensor: safetensors::SafetensorsTensor| {
        use nn::TensorSource;
        (tensor.name().to_owned(), bytes(&tensor.load().unwrap()).unwrap())
    };
    tensors.into_iter().map(entry).collect()
}

fn config() -> Map<String, Value> {
    let config = json!({"model_type": "llama", "vision_config": {}, "_name_or_path": "x"});
    config.as_object().unwrap().clone()
}

#[test]
fn a_folder_holds_what_was_taken() {
    let (source, place) = (source(), TempDir::new().unwrap());
    let target = place.path().join("out");
    let folder = MlxFolder::create(&target, false).unwrap();
    let mut sink = folder.sink();
    let (norm, matrix) = (numbers(&[3]), packed(SPEC));
    let eight = QuantSpec { bits: 8, ..SPEC };
    sink.tensor("norm.weight", &norm).unwrap();
    sink.packed("a.proj", &matrix).unwrap();
    sink.packed("a.gate", &packed(eight)).unwrap();
    let written = folder.finish(&config(), Some(SPEC), source.path()).unwrap();
    let nbytes = 12 + (128 + 32 + 32) + (256 + 32 + 32);
    assert_eq!(written, Written { total_bytes: nbytes, total_parameters: 515, num_shards: 1 });

    let tensors = read(&target.join("model.safetensors"));
    assert_eq!(tensors["norm.weight"], bytes(&norm).unwrap());
    let LinearWeight::Quantized { weight, biases: Some(biases), .. } = &matrix else { panic!() };
    assert_eq!(tensors["a.proj.weight"], bytes(weight).unwrap());
    assert_eq!(tensors["a.proj.biases"], bytes(biases).unwrap());
    assert_eq!(tensors.len(), 7);

    let json = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(target.join(name)).unwrap()).unwrap()
    };
    let packing = json!({
        "group_size": 32, "bits": 4, "mode": "affine",
        "a.gate": {"group_size": 32, "bits": 8, "mode": "affine"},
    });
    let expected = json!({
        "model_type": "llama", "quantization": packing, "quantization_config": packing,
    });
    assert_eq!(json("config.json"), expected);
    let index = json("model.safetensors.index.json");
    assert_eq!(index["metadata"]["total_size"], nbytes);
    assert_eq!(index["weight_map"]["a.gate.scales"], "model.safetensors");
    assert!(target.join("tokenizer.json").is_file() && !target.join("notes.txt").exists());
    assert_eq!(folder::open(&target, PACKED, None).unwrap().names().count(), 7);
    assert!(!place.path().join("out.partial").exists());
}

#[test]
fn large_models_come_in_shards() {
    let place = TempDir::new().unwrap();
    let target = place.path().join("out");
    let folder = MlxFolder::create(&target, false).unwrap();
    folder.content.borrow_mut().shard_bytes = 100;
    let mut sink = folder.sink();
    for (name, len) in [("a", 10), ("b", 15), ("c", 10), ("d", 40)] {
        sink.tensor(name, &numbers(&[len])).unwrap();
    }
    let written = folder.finish(&config(), None, place.path()).unwrap();
    assert_eq!(written.num_shards, 3);
    let shard = |number| read(&target.join(format!("model-{number:05}-of-00003.safetensors")));
    let names = |number| shard(number).into_keys().collect::<Vec<_>>();
    assert_eq!([names(1), names(2), names(3)], [vec!["a", "b"], vec!["c"], vec!["d"]]);
    assert_eq!(folder::open(&target, PACKED, None).unwrap().names().count(), 4);
}

#[test]
fn unpacked_matrices_are_dense() {
    let place = TempDir::new().unwrap();
    let target = place.path().join("out");
    let folder = MlxFolder::create(&target, true).unwrap();
    let matrix = packed(SPEC);
    folder.sink().packed("a.proj", &matrix).unwrap();
    folder.finish(&config(), Some(SPEC), place.path()).unwrap();
    let tensors = read(&target.join("model.safetensors"));
    let dense = matrix.dequantize_as(Dtype::Float32).unwrap();
    assert_eq!(
        tensors.into_iter().collect::<Vec<_>>(),
        [("a.proj.weight".to_owned(), bytes(&dense).unwrap())]
    );
    let config = fs::read_to_string(target.join("config.json")).unwrap();
    assert!(!config.contains("quantization"), "{config}");
}

#[test]
fn nothing_is_overwritten_and_nothing_stays_behind() {
    let place = TempDir::new().unwrap();
    let target = place.path().join("out");
    fs::create_dir(&target).unwrap();
    let error = MlxFolder::create(&target, false).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot write {}", target.display()));
    fs::remove_dir(&target).unwrap();
    let folder = MlxFolder::create(&target, false).unwrap();
    folder.sink().tensor("a", &numbers(&[3])).unwrap();
    drop(folder);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_model_tells_the_sink_what_it_takes() {
    let place = TempDir::new().unwrap();
    let (first, second) = (place.path().join("first"), place.path().join("second"));
    let folder = MlxFolder::create(&first, false).unwrap();
    for name in ["layer.weight", "hidden.weight"] {
        folder.sink().tensor(name, &numbers(&[2])).unwrap();
    }
    folder.finish(&config(), None, place.path()).unwrap();

    let folder = MlxFolder::create(&second, false).unwrap();
    let weights = nn::Weights::new(folder::open(&first, PACKED, None).unwrap());
    weights.set_sink(folder.sink());
    weights.at("layer").take("weight", &[2]).unwrap();
    weights.at("hidden").silent().take("weight", &[2]).unwrap();
    weights.at("other").report(&packed(SPEC)).unwrap();
    weights.finish(&[]).unwrap();
    folder.finish(&config(), Some(SPEC), place.path()).unwrap();
    let names: Vec<_> = read(&second.join("model.safetensors")).into_keys().collect();
    assert_eq!(names, ["layer.weight", "other.biases", "other.scales", "other.weight"]);
}
