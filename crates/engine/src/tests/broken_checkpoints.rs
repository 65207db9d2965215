//! A good 4-bit checkpoint in two shards, broken in one place at a time: each is
//! refused with a message that names the culprit, and nothing is allocated for what
//! a broken file claims to be.

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use serde_json::{Value, json};

use super::{alone, config, llama_config};
use crate::{Quiet, loading};

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX: &str = "model.safetensors.index.json";
const Q_PROJ: &str = "model.layers.0.self_attn.q_proj";

/// Type and shape by name.
type Tensors = BTreeMap<String, (&'static str, Vec<usize>)>;

/// What is done to the good one.
enum Break {
    Config(Value),
    Tensors(fn(&mut Tensors)),
    Header(fn(&mut Value)),
    Files(fn(&Path)),
}

use Break::{Config, Files, Header, Tensors as OfTensors};

fn good_config() -> Value {
    let mut config = llama_config();
    for (field, value) in [
        ("intermediate_size", json!(128)),
        ("vocab_size", json!(96)),
        ("torch_dtype", json!("float16")),
        ("quantization", json!({"group_size": 64, "bits": 4})),
    ] {
        config[field] = value;
    }
    config
}

fn good_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    let mut linear = |name: &str, out: usize, inputs: usize| {
        tensors.insert(format!("{name}.weight"), ("U32", vec![out, inputs / 8]));
        for part in ["scales", "biases"] {
            tensors.insert(format!("{name}.{part}"), ("F16", vec![out, inputs / 64]));
        }
    };
    linear("model.embed_tokens", 96, 64);
    linear("lm_head", 96, 64);
    for layer in 0..2 {
        for (name, out, inputs) in [
            ("self_attn.q_proj", 64, 64),
            ("self_attn.k_proj", 32, 64),
            ("self_attn.v_proj", 32, 64),
            ("self_attn.o_proj", 64, 64),
            ("mlp.gate_proj", 128, 64),
            ("mlp.up_proj", 128, 64),
            ("mlp.down_proj", 64, 128),
        ] {
            linear(&format!("model.layers.{layer}.{name}"), out, inputs);
        }
    }
    for layer in 0..2 {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.insert(format!("model.layers.{layer}.{norm}.weight"), ("F16", vec![64]));
        }
    }
    tensors.insert("model.norm.weight".to_owned(), ("F16", vec![64]));
    tensors
}

/// A shard's header and the bytes behind it.
fn shard<'a>(
    tensors: impl Iterator<Item = (&'a String, &'a (&'static str, Vec<usize>))>,
) -> (Value, usize) {
    let (mut header, mut end) = (json!({}), 0);
    for (name, (dtype, shape)) in tensors {
        let size = if *dtype == "U32" { 4 } else { 2 };
        let begin = end;
        end += shape.iter().product::<usize>() * size;
        header[name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
    }
    (header, end)
}

fn write_shard(path: &Path, header: &Value, num_bytes: usize) {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + num_bytes, 0);
    fs::write(path, bytes).unwrap();
}

/// The checkpoint with one thing broken.
fn write(folder: &Path, broken: &Break) {
    let (mut config, mut tensors) = (good_config(), good_tensors());
    match broken {
        Config(fields) => {
            for (field, value) in fields.as_object().unwrap() {
                match value.as_str() {
                    Some("(none)") => drop(config.as_object_mut().unwrap().remove(field)),
                    _ => config[field] = value.clone(),
                }
            }
        }
        OfTensors(change) => change(&mut tensors),
        Header(_) | Files(_) => {}
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let in_first = |name: &str| name.starts_with("model.layers.0");
    let mut weight_map = BTreeMap::new();
    for (place, file) in SHARDS.into_iter().enumerate() {
        let of_shard = tensors.iter().filter(|(name, _)| in_first(name) == (place == 0));
        let (mut header, num_bytes) = shard(of_shard);
        weight_map.extend(header.as_object().unwrap().keys().map(|name| (name.clone(), file)));
        if let (Header(change), 0) = (broken, place) {
            change(&mut header);
        }
        write_shard(&folder.join(file), &header, num_bytes);
    }
    let index = json!({"metadata": {}, "weight_map": weight_map});
    fs::write(folder.join(INDEX), index.to_string()).unwrap();
    if let Files(change) = broken {
        change(folder);
    }
}

/// The whole message, or nothing if it loads.
fn refusal(folder: &Path) -> Option<String> {
    let error = loading::load(&config(folder), &Quiet).err()?;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    Some(text)
}

fn edit(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn edit_index(folder: &Path, change: impl Fn(&mut Value)) {
    let text = fs::read_to_string(folder.join(INDEX)).unwrap();
    let mut index = serde_json::from_str(&text).unwrap();
    change(&mut index);
    fs::write(folder.join(INDEX), index.to_string()).unwrap();
}

fn of_config() -> Vec<(&'static str, Break)> {
    let nested =
        |depth| (0..depth).fold(json!({}), |inner, _: usize| json!({"rope_scaling": inner}));
    let fields = [
        ("NoSuchForCausalLM", json!({"architectures": ["NoSuchForCausalLM"]})),
        ("architectures", json!({"model_type": "(none)", "architectures": "(none)"})),
        ("hidden_size", json!({"hidden_size": "(none)"})),
        ("hidden_size", json!({"hidden_size": "64"})),
        ("hidden_size", json!({"hidden_size": 0})),
        ("hidden_size", json!({"hidden_size": 1_u64 << 40})),
        ("num_hidden_layers", json!({"num_hidden_layers": -2})),
        ("num_hidden_layers", json!({"num_hidden_layers": 1.5})),
        ("model.layers.2.", json!({"num_hidden_layers": 1_000_000_000})),
        ("model.layers.1.", json!({"num_hidden_layers": 1})),
        ("num_attention_heads", json!({"num_attention_heads": 5})),
        ("num_key_value_heads", json!({"num_key_value_heads": 0})),
        ("num_key_value_heads", json!({"num_key_value_heads": 3})),
        ("vocab_size", json!({"vocab_size": 0})),
        ("embed_tokens", json!({"vocab_size": 97})),
        ("head_dim", json!({"head_dim": 0})),
        ("q_proj", json!({"head_dim": 32})),
        ("mlp", json!({"intermediate_size": 64})),
        ("rope_theta", json!({"rope_theta": "big"})),
        ("rope_scaling", json!({"rope_scaling": nested(20)})),
        ("config.json", json!({"rope_scaling": nested(200)})),
        ("spiral", json!({"rope_scaling": {"type": "spiral", "factor": 2.0}})),
        ("factor", json!({"rope_scaling": {"type": "linear"}})),
        ("xielu", json!({"hidden_act": "xielu"})),
        ("sliding_window", json!({"sliding_window": 0})),
        ("layer_types", json!({"layer_types": ["full_attention"]})),
        ("tie_word_embeddings", json!({"tie_word_embeddings": "yes"})),
        ("quantization", json!({"quantization": "4bit"})),
        ("7", json!({"quantization": {"group_size": 64, "bits": 7}})),
        ("48", json!({"quantization": {"group_size": 48, "bits": 4}})),
        ("affinely", json!({"quantization": {"group_size": 64, "bits": 4, "mode": "affinely"}})),
        (Q_PROJ, json!({"quantization": {"group_size": 64, "bits": 8}})),
        (Q_PROJ, json!({"quantization": {"group_size": 32, "bits": 4}})),
    ];
    fields.into_iter().map(|(culprit, fields)| (culprit, Config(fields))).collect()
}

fn of_tensors() -> Vec<(&'static str, Break)> {
    fn shape(tensors: &mut Tensors, part: &str, shape: &[usize]) {
        tensors.get_mut(&format!("{Q_PROJ}.{part}")).unwrap().1 = shape.to_vec();
    }
    vec![
        (
            "model.layers.1.mlp.up_proj",
            OfTensors(|t| drop(t.remove("model.layers.1.mlp.up_proj.weight"))),
        ),
        ("model.norm.weight", OfTensors(|t| drop(t.remove("model.norm.weight")))),
        (Q_PROJ, OfTensors(|t| drop(t.remove(&format!("{Q_PROJ}.scales"))))),
        (Q_PROJ, OfTensors(|t| drop(t.remove(&format!("{Q_PROJ}.biases"))))),
        ("left.behind", OfTensors(|t| drop(t.insert("left.behind".to_owned(), ("F16", vec![3]))))),
        ("lm_head", OfTensors(|t| drop(t.insert("lm_head.bias".to_owned(), ("F16", vec![96]))))),
        (Q_PROJ, OfTensors(|t| shape(t, "weight", &[8, 64]))),
        (Q_PROJ, OfTensors(|t| shape(t, "weight", &[64, 16]))),
        (Q_PROJ, OfTensors(|t| shape(t, "weight", &[64, 8, 1]))),
        (Q_PROJ, OfTensors(|t| shape(t, "weight", &[0, 8]))),
        (Q_PROJ, OfTensors(|t| shape(t, "scales", &[64, 2]))),
        (Q_PROJ, OfTensors(|t| shape(t, "biases", &[32, 1]))),
        ("model.norm.weight", OfTensors(|t| t.get_mut("model.norm.weight").unwrap().1 = vec![65])),
    ]
}

fn of_headers() -> Vec<(&'static str, Break)> {
    vec![
        (Q_PROJ, Header(|h| h[format!("{Q_PROJ}.weight")]["dtype"] = json!("F4_SECRET"))),
        (Q_PROJ, Header(|h| h[format!("{Q_PROJ}.weight")]["dtype"] = json!("F16"))),
        (
            Q_PROJ,
            Header(|h| h[format!("{Q_PROJ}.weight")]["data_offsets"] = json!([0, 1_u64 << 60])),
        ),
        (Q_PROJ, Header(|h| h[format!("{Q_PROJ}.weight")]["data_offsets"] = json!([2048, 0]))),
        ("overlap", Header(|h| h[format!("{Q_PROJ}.weight")]["data_offsets"] = json!([0, 2048]))),
        (
            Q_PROJ,
            Header(|h| {
                h[format!("{Q_PROJ}.weight")]["shape"] = json!([1_u64 << 31, 1_u64 << 31, 4])
            }),
        ),
        (SHARDS[0], Header(|h| h[format!("{Q_PROJ}.weight")]["shape"] = json!([-64, 8]))),
        (SHARDS[0], Header(|h| h[format!("{Q_PROJ}.weight")] = json!(null))),
        (SHARDS[0], Header(|h| *h = json!([]))),
    ]
}

fn of_files() -> Vec<(&'static str, Break)> {
    vec![
        ("config.json", Files(|f| fs::remove_file(f.join("config.json")).unwrap())),
        ("config.json", Files(|f| fs::write(f.join("config.json"), "{\"model_type\": ").unwrap())),
        ("config.json", Files(|f| fs::write(f.join("config.json"), "[]").unwrap())),
        ("config.json", Files(|f| fs::write(f.join("config.json"), "[".repeat(100_000)).unwrap())),
        (INDEX, Files(|f| fs::write(f.join(INDEX), "{").unwrap())),
        (INDEX, Files(|f| fs::write(f.join(INDEX), "{}").unwrap())),
        (
            "../evil.safetensors",
            Files(|f| edit_index(f, |i| i["weight_map"]["x"] = json!("../evil.safetensors"))),
        ),
        ("/etc/passwd", Files(|f| edit_index(f, |i| i["weight_map"]["x"] = json!("/etc/passwd")))),
        (
            "model-3.safetensors",
            Files(|f| edit_index(f, |i| i["weight_map"]["x"] = json!("model-3.safetensors"))),
        ),
        (
            "not.there",
            Files(|f| edit_index(f, |i| i["weight_map"]["not.there"] = json!(SHARDS[0]))),
        ),
        (SHARDS[1], Files(|f| fs::remove_file(f.join(SHARDS[1])).unwrap())),
        (SHARDS[1], Files(|f| edit(&f.join(SHARDS[1]), |bytes| bytes.truncate(bytes.len() - 1)))),
        (SHARDS[1], Files(|f| edit(&f.join(SHARDS[1]), |bytes| bytes.truncate(4)))),
        (SHARDS[1], Files(|f| edit(&f.join(SHARDS[1]), Vec::clear))),
        (SHARDS[1], Files(|f| edit(&f.join(SHARDS[1]), |bytes| bytes[..8].fill(0xff)))),
        (SHARDS[1], Files(|f| edit(&f.join(SHARDS[1]), |bytes| bytes[6] = 1))),
        (SHARDS[1], Files(|f| edit(&f.join(SHARDS[1]), |bytes| bytes[20] = 0xff))),
        (SHARDS[1], Files(|f| edit(&f.join(SHARDS[1]), |bytes| bytes[8] = b'['))),
        (
            SHARDS[0],
            Files(|f| {
                fs::remove_file(f.join(SHARDS[0])).unwrap();
                fs::create_dir(f.join(SHARDS[0])).unwrap();
            }),
        ),
    ]
}

/// The most memory this process ever had, in KiB; 0 where the system does not tell.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn every_broken_checkpoint_names_its_culprit() {
    let _alone = alone();
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &Config(json!({})));
    assert_eq!(refusal(folder.path()), None, "the one that is not broken");

    let before = peak_kib();
    let all = [of_config(), of_tensors(), of_headers(), of_files()];
    let mut num_broken = 0;
    let mut wrong = Vec::new();
    for (place, (culprit, broken)) in all.into_iter().flatten().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &broken);
        let text = refusal(folder.path());
        if !text.as_ref().is_some_and(|text| text.contains(culprit)) {
            wrong.push(format!("{place}, {culprit}: {text:?}"));
        }
        num_broken += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(num_broken >= 50, "{num_broken}");
    assert!(peak_kib() - before < 256 << 10, "{before} to {} KiB", peak_kib());
}
