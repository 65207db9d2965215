//! Random weights from a config alone: the models of `benches/peers/`, made small.

use std::{fs, path::Path};

use models::{CausalLm, HfConfig};
use nn::{LoadOptions, Unpack, WeightStore, Weights};
use serde_json::{Value, json};

use crate::runner::{Runner, argmax};

/// Sizes of the small variants; all else is as in the config.
fn shrunk(mut config: Value) -> Value {
    let sizes = json!({
        "num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 192, "vocab_size": 256,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "num_experts": 12, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 128,
    });
    for (field, size) in sizes.as_object().unwrap() {
        if config.get(field).is_some() {
            config[field] = size.clone();
        }
    }
    config
}

fn configs() -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/peers/configs");
    let mut configs: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|folder| {
            let folder = folder.unwrap();
            let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
            (folder.file_name().into_string().unwrap(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    configs.sort_by(|(a, _), (b, _)| a.cmp(b));
    configs
}

fn load(config: &Value) -> Box<dyn CausalLm> {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let hf = HfConfig::from_json(&config.to_string()).unwrap();
    let options = LoadOptions { compute_dtype: mlx::Dtype::Float32, unpack: Unpack::WithoutKernel };
    let store = WeightStore::dummy(options, hf.quant().clone(), 0);
    models::load(&hf, &Weights::new(store)).unwrap()
}

#[test]
fn every_config_of_the_benchmarks_runs_with_dummy_weights() {
    let configs = configs();
    let names: Vec<_> = configs.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["mixtral-8x7b", "qwen1.5-moe-a2.7b", "qwen3-30b-a3b"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for (name, config) in configs {
        let config = shrunk(config);
        let run = || {
            let mut runner = Runner::new(load(&config), 4);
            let mut seq = runner.seq(&[5, 250, 3, 77, 12]);
            let logits = runner.prefill(&mut seq, 3);
            let tokens = runner.decode(&mut seq, logits.clone(), 3);
            (logits, tokens)
        };
        let (logits, tokens) = run();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{name}");
        assert!(logits.iter().any(|&logit| logit != logits[0]), "{name}: one logit for all");
        assert_eq!(tokens[0], argmax(&logits), "{name}");
        assert_eq!(run(), (logits, tokens), "{name}: the same numbers each time");
    }
}
