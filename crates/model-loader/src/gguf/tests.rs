//! GGUF files against the definition of their formats, and broken in every way.

use std::{fs, iter};

use half::{bf16, f16};
use mlx::Dtype;
use nn::{HfConfig, LinearWeight, Unpack, Weights};
use serde_json::json;
use tempfile::tempdir;

use super::*;
use crate::test_files::{GgufWriter, PACKED, gguf_string};

mod architectures;

const DENSE: LoadOptions = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Always };
const Q4_0: u32 = 2;
const Q4_1: u32 = 3;
const Q8_0: u32 = 8;

/// Reproducible bytes.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    iter::successors(Some(seed), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .skip(1)
    .map(|state| (state >> 56) as u8)
}

/// Blocks with small positive scales, and what they stand for, computed from
/// the definition of the format element by element.
fn blocks(kind: u32, count: usize, seed: u64) -> (Vec<u8>, Vec<f32>) {
    let mut noise = noise(seed);
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut small = || f16::from_f32(f32::from(noise.next().unwrap()) / 997.0 + 0.001);
        let (d, m) = (small(), small());
        let elements: Vec<u8> = noise.by_ref().take(if kind == Q8_0 { 32 } else { 16 }).collect();
        bytes.extend(d.to_le_bytes());
        if kind == Q4_1 {
            bytes.extend(m.to_le_bytes());
        }
        bytes.extend(&elements);
        let (d, m) = (d.to_f32(), m.to_f32());
        for index in 0..32 {
            let nibble = |index: usize| match index {
                0..16 => elements[index] & 0xf,
                _ => elements[index - 16] >> 4,
            };
            values.push(match kind {
                Q8_0 => d * f32::from(elements[index].cast_signed()),
                Q4_0 => d * (f32::from(nibble(index)) - 8.0),
                _ => d * f32::from(nibble(index)) + m,
            });
        }
    }
    (bytes, values)
}

fn plain(kind: u32, values: &[f32]) -> Vec<u8> {
    match kind {
        0 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        1 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
    }
}

const HIDDEN: u64 = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// One layer, hidden size 64, four heads of 16, two of them for keys.
fn llama() -> GgufWriter {
    let ones = |count: u64| vec![1.0; count as usize];
    let matrix = |rows: u64, seed| blocks(Q4_1, (rows * HIDDEN / 32) as usize, seed).0;
    let mut writer = GgufWriter::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", 512)
        .u32("llama.embedding_length", 64)
        .u32("llama.feed_forward_length", 64)
        .u32("llama.attention.head_count", HEADS as u32)
        .u32("llama.attention.head_count_kv", KV_HEADS as u32)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .f32("llama.rope.freq_base", 100_000.0)
        .u32("llama.rope.dimension_count", 16)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", &["<s>", "</s>", "a"])
        .strings("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 1)
        .raw("tokenizer.ggml.add_bos_token", 7, &[0])
        .str("tokenizer.chat_template", "{{ messages }}")
        .f32_tensor("output_norm.weight", &[HIDDEN], &ones(HIDDEN))
        .f32_tensor("blk.0.attn_norm.weight", &[HIDDEN], &ones(HIDDEN))
        .f32_tensor("blk.0.ffn_norm.weight", &[HIDDEN], &ones(HIDDEN))
        .tensor("token_embd.weight", &[HIDDEN, 3], Q8_0, blocks(Q8_0, 6, 1).0);
    for (seed, (name, rows)) in [
        ("attn_q", 64),
        ("attn_k", 32),
        ("attn_v", 32),
        ("attn_output", 64),
        ("ffn_gate", 64),
        ("ffn_up", 64),
        ("ffn_down", 64),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("blk.0.{name}.weight");
        writer = writer.tensor(&name, &[HIDDEN, rows], Q4_1, matrix(rows, seed as u64 + 2));
    }
    writer
}

fn opened(writer: &GgufWriter, options: LoadOptions) -> GgufModel {
    let folder = tempdir().unwrap();
    open(&writer.write(folder.path()), options).unwrap_or_else(|error| panic!("{error}"))
}

/// Like [`opened`], read while the file exists.
fn taken<T>(writer: &GgufWriter, options: LoadOptions, take: impl Fn(&Weights) -> T) -> T {
    let folder = tempdir().unwrap();
    let model = open(&writer.write(folder.path()), options).unwrap();
    take(&Weights::new(model.store))
}

fn error(bytes: &[u8]) -> String {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    match open(&path, PACKED) {
        Ok(_) => panic!("the file opens"),
        Err(error) => error.to_string(),
    }
}

fn dense(weights: &Weights, module: &str, in_dims: usize, out_dims: usize) -> Vec<f32> {
    match weights.at(module).linear_parts(in_dims, out_dims).unwrap() {
        LinearWeight::Dense(array) => array.to_vec::<f32>().unwrap(),
        LinearWeight::Quantized { .. } => panic!("packed"),
    }
}

#[test]
fn plain_and_short_types_are_value_exact() {
    const MODULE: &str = "model.layers.0.mlp.down_proj";
    let load = |kind, bytes| {
        let writer = llama().tensor("blk.0.ffn_down.weight", &[HIDDEN, 64], kind, bytes);
        taken(&writer, DENSE, |weights| dense(weights, MODULE, 64, 64))
    };
    for kind in [Q4_0, Q4_1, Q8_0] {
        let (bytes, values) = blocks(kind, 128, u64::from(kind));
        assert_eq!(load(kind, bytes), values, "type {kind}");
    }
    let values: Vec<f32> = (0..4096).map(|i| (i % 251) as f32 / 128.0 - 0.9).collect();
    let rounded = |round: fn(f32) -> f32| values.iter().copied().map(round).collect::<Vec<_>>();
    assert_eq!(load(0, plain(0, &values)), values);
    assert_eq!(load(1, plain(1, &values)), rounded(|value| f16::from_f32(value).to_f32()));
    assert_eq!(load(30, plain(30, &values)), rounded(|value| bf16::from_f32(value).to_f32()));
}

/// Bytes and numbers of each type, by the Python package gguf
/// (`tools/oracle/gguf_blocks.py`).
fn goldens() -> Vec<(String, u32, Vec<u8>, Vec<f32>)> {
    let file: Value =
        serde_json::from_str(include_str!("../../testdata/gguf_blocks.json")).unwrap();
    let golden = |(name, golden): (&String, &Value)| {
        let hex = golden["bytes"].as_str().unwrap().as_bytes().chunks(2);
        let byte = |hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
        let values = golden["values"].as_array().unwrap().iter();
        let values = values.map(|value| value.as_f64().unwrap() as f32).collect();
        (name.clone(), golden["type"].as_u64().unwrap() as u32, hex.map(byte).collect(), values)
    };
    let entries = file.as_object().unwrap().iter().filter(|(_, golden)| golden.is_object());
    entries.map(golden).collect()
}

const UP: &str = "model.layers.0.mlp.up_proj";

#[test]
fn every_quantized_type_is_value_exact() {
    let goldens = goldens();
    assert_eq!(goldens.len(), 12);
    for (name, kind, bytes, values) in goldens {
        let writer = llama().tensor("blk.0.ffn_up.weight", &[256, 1], kind, bytes);
        let found = taken(&writer, DENSE, |weights| dense(weights, UP, 256, 1));
        assert_eq!(found, values, "{name}");
    }
}

#[test]
fn decoded_types_are_packed_anew_and_the_others_kept() {
    for (name, kind, bytes, values) in goldens() {
        let writer = llama().tensor("blk.0.ffn_up.weight", &[256, 1], kind, bytes);
        let folder = tempdir().unwrap();
        let model = open(&writer.write(folder.path()), PACKED).unwrap();
        let weights = Weights::new(model.store);
        let is_decoded = ["Q2_K", "Q3_K", "Q6_K", "IQ4_NL", "IQ4_XS"].contains(&name.as_str());
        assert_eq!(model.repack.is_some(), is_decoded, "{name}");
        model.repack.into_iter().for_each(|how| weights.quantize_on_load(how));
        let packed = weights.at(UP).linear_parts(256, 1).unwrap();
        let LinearWeight::Quantized { spec, .. } = &packed else { panic!("{name} is dense") };
        let bits = if is_decoded || name == "Q8_0" { 8 } else { name[1..2].parse().unwrap() };
        assert_eq!((spec.bits, spec.group_size), (bits, 32), "{name}");
        let found = packed.dequantize(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();
        let off = found.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let range = values.iter().copied().fold(0.0, |most: f32, value| most.max(value.abs()));
        // A step of 255 from end to end.
        let allowed = if is_decoded { 2.0 * range / 255.0 } else { 0.0 };
        assert!(off <= allowed, "{name}: off by {off} of {range}");
    }
}

#[test]
fn packed_parts_keep_f16_factors() {
    let (_, values) = blocks(Q8_0, 6, 1);
    taken(&llama(), PACKED, |weights| {
        let embed = weights.at("model.embed_tokens");
        let factors = embed.take_as_stored("scales", &[3, 2]).unwrap();
        assert_eq!(factors.dtype(), Dtype::Float16);
        assert_eq!(embed.take_as_stored("biases", &[3, 2]).unwrap().dtype(), Dtype::Float16);
        let words = embed.take_as_stored("weight", &[3, 16]).unwrap().to_vec::<u32>().unwrap();
        let scale = factors.to_vec::<f16>().unwrap()[0].to_f32();
        let first = f32::from(words[0].to_le_bytes()[0]) - 128.0;
        assert_eq!(first * scale, values[0]);
    });
}

#[test]
fn factors_that_overflow_f16_are_f32() {
    let (mut bytes, _) = blocks(Q8_0, 128, 3);
    bytes[..2].copy_from_slice(&f16::from_f32(600.0).to_le_bytes());
    let first = f32::from(bytes[2].cast_signed()) * 600.0;
    let writer = llama().tensor("blk.0.ffn_down.weight", &[HIDDEN, 64], Q8_0, bytes);
    taken(&writer, PACKED, |weights| {
        let down = weights.at("model.layers.0.mlp.down_proj");
        for name in ["scales", "biases"] {
            assert_eq!(down.take_as_stored(name, &[64, 2]).unwrap().dtype(), Dtype::Float32);
        }
    });
    let values =
        taken(&writer, DENSE, |weights| dense(weights, "model.layers.0.mlp.down_proj", 64, 64));
    assert_eq!(values[0], first);
}

/// The definition: `[heads, dims / 2, 2, cols]` to `[heads, 2, dims / 2, cols]`.
fn unpermuted(values: &[f32], heads: usize, cols: usize) -> Vec<f32> {
    let rows = values.len() / cols;
    let dims = rows / heads;
    let mut out = Vec::new();
    for head in 0..heads {
        for half in 0..2 {
            for index in 0..dims / 2 {
                let row = head * dims + index * 2 + half;
                out.extend(&values[row * cols..(row + 1) * cols]);
            }
        }
    }
    out
}

#[test]
fn rotary_rows_are_unpermuted_packed_or_not() {
    for kind in [Q4_0, Q4_1, Q8_0, 0] {
        let make = |rows: usize, seed| match kind {
            0 => {
                let values: Vec<f32> = (0..rows * 64).map(|i| i as f32).collect();
                (plain(0, &values), values)
            }
            _ => blocks(kind, rows * 2, seed),
        };
        let ((q, q_values), (k, k_values)) = (make(64, 5), make(32, 6));
        let bias: Vec<f32> = (0..32).map(|i| i as f32).collect();
        let writer = llama()
            .tensor("blk.0.attn_q.weight", &[HIDDEN, 64], kind, q)
            .tensor("blk.0.attn_k.weight", &[HIDDEN, 32], kind, k)
            .f32_tensor("blk.0.attn_k.bias", &[32], &bias);
        taken(&writer, DENSE, |weights| {
            let attn = weights.at("model.layers.0.self_attn");
            assert_eq!(dense(&attn, "q_proj", 64, 64), unpermuted(&q_values, HEADS, 64));
            assert_eq!(dense(&attn, "k_proj", 64, 32), unpermuted(&k_values, KV_HEADS, 64));
            let got = attn.at("k_proj").take("bias", &[32]).unwrap().to_vec::<f32>().unwrap();
            assert_eq!(got, unpermuted(&bias, KV_HEADS, 1));
        });
    }
}

#[test]
fn config_vocabulary_and_names() {
    let writer = llama()
        .str("tokenizer.chat_template.tool_use", "T")
        .str("tokenizer.chat_template.rag", "R")
        .strings("tokenizer.chat_templates", &["rag", "tool_use"]);
    let model = opened(&writer, PACKED);
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 3, "hidden_act": "silu",
        "rms_norm_eps": f64::from(1e-5f32), "rope_theta": 100_000.0,
        "max_position_embeddings": 512, "attention_bias": false, "mlp_bias": false,
        "tie_word_embeddings": true, "torch_dtype": "float16", "eos_token_id": [1],
        "bos_token_id": 0,
    });
    assert_eq!(Value::Object(model.config), expected);
    let vocab = model.vocab;
    assert_eq!((vocab.model.as_str(), vocab.pre.as_deref()), ("gpt2", Some("smollm")));
    assert_eq!((vocab.tokens.len(), vocab.merges.as_slice()), (3, &["a b".to_owned()][..]));
    assert_eq!((vocab.bos_token_id, vocab.eos_token_id), (Some(0), Some(1)));
    assert_eq!((vocab.add_bos, vocab.scores), (Some(false), None));
    let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let templates = [named("default", "{{ messages }}"), named("rag", "R"), named("tool_use", "T")];
    assert_eq!(vocab.chat_templates, templates);
    let names: Vec<_> = model.store.names().filter(|name| name.ends_with(".weight")).collect();
    assert_eq!(
        names,
        [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.norm.weight",
        ]
    );
}

#[test]
fn qwens_names_and_keys() {
    let as_qwen = |name: &str| llama().renamed("llama", name).str("general.architecture", name);
    let rows = |count: u64| vec![1.0; count as usize];
    let norms = |writer: GgufWriter| {
        let norm = |writer: GgufWriter, part: &str| {
            writer.f32_tensor(&format!("blk.0.{part}.weight"), &[16], &rows(16))
        };
        norm(norm(writer, "attn_q_norm"), "attn_k_norm")
    };
    let fields = |model: &GgufModel, names: &[&str]| {
        names.iter().map(|name| model.config[*name].clone()).collect::<Vec<_>>()
    };
    let qwen2 = as_qwen("qwen2").f32_tensor("blk.0.attn_q.bias", &[HIDDEN], &rows(HIDDEN));
    let model = opened(&qwen2, PACKED);
    let found = fields(&model, &["architectures", "model_type", "qkv_bias", "rope_theta"]);
    assert_eq!(json!(found), json!([["Qwen2ForCausalLM"], "qwen2", true, 100_000.0]));
    assert!(model.store.names().any(|name| name == "model.layers.0.self_attn.q_proj.bias"));

    let model = opened(&norms(as_qwen("qwen3")), PACKED);
    let found = fields(&model, &["architectures", "qkv_bias", "head_dim"]);
    assert_eq!(json!(found), json!([["Qwen3ForCausalLM"], false, 16]));
    assert!(model.store.names().any(|name| name == "model.layers.0.self_attn.k_norm.weight"));

    let experts = |part: &str| (format!("blk.0.ffn_{part}_exps.weight"), blocks(Q4_1, 384, 9).0);
    let mut moe = norms(as_qwen("qwen3moe"))
        .u32("qwen3moe.expert_count", 3)
        .u32("qwen3moe.expert_used_count", 2)
        .u32("qwen3moe.expert_feed_forward_length", 64)
        .f32_tensor("blk.0.ffn_gate_inp.weight", &[HIDDEN, 3], &rows(3 * HIDDEN));
    for part in ["gate", "up", "down"] {
        let (name, bytes) = experts(part);
        moe = moe.without_tensor(&format!("blk.0.ffn_{part}.weight"));
        moe = moe.tensor(&name, &[HIDDEN, 64, 3], Q4_1, bytes);
    }
    let model = opened(&moe, PACKED);
    let found = fields(&model, &["num_experts", "num_experts_per_tok", "moe_intermediate_size"]);
    assert_eq!(json!(found), json!([3, 2, 64]));
    let values = blocks(Q4_1, 384, 9).1;
    let found = taken(&moe, DENSE, |weights| {
        let w = weights.at("model.layers.0.mlp.switch_mlp.down_proj");
        let LinearWeight::Dense(stack) = w.stacked_linear_parts(3, 64, 64).unwrap() else {
            panic!()
        };
        stack.to_vec::<f32>().unwrap()
    });
    assert_eq!(found, values);
    // Qwen's heads are in Hugging Face's order: rows stay where they are.
    let rows_of = |writer: &GgufWriter| {
        taken(writer, DENSE, |weights| dense(weights, "model.layers.0.self_attn.q_proj", 64, 64))
    };
    let expected = blocks(Q4_1, 128, 2).1;
    assert_eq!(rows_of(&qwen2), expected);
    assert_ne!(rows_of(&llama()), expected);
}

#[test]
fn an_output_matrix_unties_and_biases_show() {
    let writer = llama()
        .tensor("output.weight", &[HIDDEN, 3], Q8_0, blocks(Q8_0, 6, 9).0)
        .f32_tensor("blk.0.attn_q.bias", &[64], &[0.0; 64])
        .u32("tokenizer.ggml.eot_token_id", 2)
        .u32("llama.attention.sliding_window", 128);
    let model = opened(&writer, PACKED);
    assert_eq!(model.config["tie_word_embeddings"], json!(false));
    assert_eq!(model.config["attention_bias"], json!(true));
    assert_eq!(model.config["eos_token_id"], json!([1, 2]));
    assert_eq!(model.config["sliding_window"], json!(128));
    assert!(model.store.names().any(|name| name == "lm_head.scales"));
}

#[test]
fn rope_scaling_keys() {
    let scaling = |writer: &GgufWriter| opened(writer, PACKED).config.get("rope_scaling").cloned();
    let typed = |kind| llama().str("llama.rope.scaling.type", kind);
    assert_eq!(scaling(&typed("none")), None);
    let linear = typed("linear").f32("llama.rope.scaling.factor", 4.0);
    let expected =
        json!({"rope_type": "linear", "factor": 4.0, "original_max_position_embeddings": 512});
    assert_eq!(scaling(&linear), Some(expected.clone()));
    assert_eq!(scaling(&llama().f32("llama.rope.scale_linear", 4.0)), Some(expected));
    let config = HfConfig::from_map(opened(&linear, PACKED).config).unwrap();
    assert_eq!(config.context_length(), 512, "the file's length is the stretched one");
    let yarn = typed("yarn")
        .f32("llama.rope.scaling.factor", 2.0)
        .u32("llama.rope.scaling.original_context_length", 256);
    let expected =
        json!({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256});
    assert_eq!(scaling(&yarn), Some(expected));
    assert!(
        error(&typed("longrope").bytes()).contains("rope scaling \"longrope\" is not supported")
    );
    assert!(
        error(&typed("yarn").bytes()).contains("metadata llama.rope.scaling.factor: is missing")
            || error(&typed("yarn").bytes()).contains("original_context_length: is missing")
    );
}

/// Factors as the makers of Llama 3.2 define them, written independently.
fn llama3_factors(theta: f32, dims: usize, factor: f32) -> Vec<f32> {
    (0..dims / 2)
        .map(|i| {
            let freq = 1.0 / theta.powf(2.0 * i as f32 / dims as f32);
            let wavelen = 2.0 * std::f32::consts::PI / freq;
            if wavelen < 8192.0 / 4.0 {
                1.0
            } else if wavelen > 8192.0 {
                factor
            } else {
                let smooth = (8192.0 / wavelen - 1.0) / 3.0;
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        })
        .collect()
}

#[test]
fn llama3_scaling_is_recovered_from_its_factors() {
    let with = |factors: &[f32]| {
        llama().f32("llama.rope.freq_base", 500_000.0).f32_tensor(
            "rope_freqs.weight",
            &[factors.len() as u64],
            factors,
        )
    };
    let factors = llama3_factors(500_000.0, 16, 32.0);
    assert!(factors.iter().any(|&factor| factor > 1.0 && factor < 32.0), "{factors:?}");
    let expected = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    assert_eq!(opened(&with(&factors), PACKED).config["rope_scaling"], expected);
    assert_eq!(opened(&with(&[1.0; 8]), PACKED).config.get("rope_scaling"), None);
    for wrong in [vec![2.0; 8], vec![1.0; 7]] {
        let text = error(&with(&wrong).bytes());
        assert!(text.contains("tensor rope_freqs.weight: holds frequency factors"), "{text}");
    }
}

fn check(cases: Vec<(Vec<u8>, &str)>) {
    for (bytes, expected) in cases {
        let text = error(&bytes);
        assert!(text.contains("model.gguf: ") && text.contains(expected), "{text}\n{expected}");
    }
}

#[test]
fn tensors_that_cannot_run_are_refused_by_name() {
    let tensor = |name: &str, kind| llama().tensor(name, &[HIDDEN, 64], kind, vec![0; 16384]);
    check(vec![
        (
            tensor("blk.0.ffn_up.weight", 12).bytes(),
            "tensor blk.0.ffn_up.weight: rows of 64 elements are no whole number of blocks of 256",
        ),
        (tensor("blk.0.ffn_up.weight", 16).bytes(), "element type IQ2_XXS is not supported"),
        (tensor("blk.0.ffn_up.weight", 39).bytes(), "element type MXFP4 is not supported"),
        (tensor("blk.0.ffn_up.weight", 99).bytes(), "element type number 99 is not supported"),
        (
            tensor("blk.0.ffn_gate_inp.weight", 0).bytes(),
            "tensor blk.0.ffn_gate_inp.weight: is not part of the llama architecture",
        ),
        (tensor("blk.x.ffn_up.weight", 0).bytes(), "tensor blk.x.ffn_up.weight: is not part of"),
        (tensor("strange", 0).bytes(), "tensor strange: is not part of the llama architecture"),
    ]);
}

#[test]
fn settings_that_cannot_run_are_refused_by_name() {
    check(vec![
        (
            llama().str("general.architecture", "mamba").bytes(),
            "GGUF architecture \"mamba\" is not supported (supported: cohere2, gemma2, gemma3, glm4, granite, llama, olmo2, phi3, qwen2, qwen2moe, qwen3, qwen3moe, seed_oss, smollm3)",
        ),
        (
            llama().without("general.architecture").bytes(),
            "metadata general.architecture: is missing",
        ),
        (llama().u32("general.architecture", 1).bytes(), "general.architecture: expected a string"),
        (llama().u32("llama.expert_count", 8).bytes(), "a mixture of 8 experts is not supported"),
        (
            llama()
                .u32("llama.rope.dimension_count", 8)
                .u32("llama.attention.key_length", 16)
                .bytes(),
            "rotating a part of a head is not supported",
        ),
        (
            llama().u32("llama.attention.value_length", 8).bytes(),
            "must equal the length of the keys",
        ),
        (llama().without("llama.block_count").bytes(), "metadata llama.block_count: is missing"),
        (
            llama().str("llama.block_count", "1").bytes(),
            "metadata llama.block_count: expected a count",
        ),
        (
            llama().raw("llama.block_count", 5, &(-1i32).to_le_bytes()).bytes(),
            "metadata llama.block_count: expected a count",
        ),
        (
            llama().u32("llama.block_count", 117_440_516).bytes(),
            "metadata llama.block_count: 117440516 layers, of 10000 at most",
        ),
        (llama().u32("llama.attention.head_count", 0).bytes(), "head_count: must not be zero"),
        (
            llama().u32("llama.attention.head_count", 5).bytes(),
            "tensor blk.0.attn_q.weight: 64 rows do not divide into 5 rotary heads",
        ),
        (
            llama().f32("llama.rope.freq_base", f32::NAN).bytes(),
            "freq_base: expected a finite float",
        ),
        (
            llama()
                .raw(
                    "llama.attention.head_count_kv",
                    9,
                    &[
                        &4u32.to_le_bytes()[..],
                        &2u64.to_le_bytes(),
                        &1u32.to_le_bytes(),
                        &2u32.to_le_bytes(),
                    ]
                    .concat(),
                )
                .bytes(),
            "different counts per layer are not supported",
        ),
        (llama().without("tokenizer.ggml.tokens").bytes(), "tokenizer.ggml.tokens: is missing"),
        (llama().u32("tokenizer.ggml.tokens", 1).bytes(), "tokenizer.ggml.tokens: expected a list"),
    ]);
}

#[test]
fn a_damaged_container_names_the_entry() {
    let good = llama().bytes();
    let huge = u64::MAX.to_le_bytes();
    let nested = |depth: usize| {
        let mut value = [&4u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
        for _ in 0..depth {
            value = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &value].concat();
        }
        llama().raw("k", 9, &value).bytes()
    };
    let patched = |at: usize, bytes: &[u8]| {
        let mut patched = good.clone();
        patched[at..at + bytes.len()].copy_from_slice(bytes);
        patched
    };
    let doubled_key = {
        let key = |text: &str| [gguf_string(text), vec![0, 0, 0, 0, 1]].concat();
        let counts = [0u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
        [&b"GGUF\x03\0\0\0"[..], &counts, &key("k"), &key("k")].concat()
    };
    let many = {
        let head = [&0u32.to_le_bytes()[..], &((1u64 << 24) + 1).to_le_bytes()].concat();
        llama().raw("k", 9, &[head, vec![0; (1 << 24) + 1]].concat()).bytes()
    };
    check(vec![
        (many, "metadata k: is a list of 16777217 elements"),
        (vec![], "not a GGUF file"),
        (b"GGML\x03\0\0\0".to_vec(), "not a GGUF file"),
        (b"GGUF".to_vec(), "version at byte 4 does not fit"),
        (llama().bytes_with(1, |offset| offset), "GGUF version 1 is not supported"),
        (llama().bytes_with(3u32.swap_bytes(), |offset| offset), "GGUF version 50331648"),
        (patched(8, &huge), "tensor count at byte 16 does not fit"),
        (patched(16, &huge), "metadata count at byte 24 does not fit"),
        (patched(24, &huge), "key of metadata entry 0 at byte 32 does not fit"),
        (patched(16, &1000u64.to_le_bytes()), "truncated or corrupt"),
        (llama().raw("k", 8, &huge).bytes(), "k at byte"),
        (llama().raw("k", 9, &[&8u32.to_le_bytes()[..], &huge].concat()).bytes(), "k at byte"),
        (
            llama()
                .raw("k", 9, &[&4u32.to_le_bytes()[..], &(1u64 << 62).to_le_bytes()].concat())
                .bytes(),
            "k at byte",
        ),
        (
            llama().raw("k", 9, &[&77u32.to_le_bytes()[..], &huge].concat()).bytes(),
            "metadata k: has unknown type 77",
        ),
        (llama().raw("k", 13, &[0]).bytes(), "metadata k: has unknown type 13"),
        (llama().raw("k", 7, &[2]).bytes(), "metadata k: is neither true nor false"),
        (
            llama().raw("k", 8, &[&1u64.to_le_bytes()[..], &[0xff]].concat()).bytes(),
            "metadata k: is not UTF-8",
        ),
        (nested(9), "metadata k: nests too deep"),
        (doubled_key, "metadata k: occurs twice"),
    ]);
}

#[test]
fn a_damaged_directory_names_the_tensor() {
    let good = llama().bytes();
    let one_tensor = |dims: &[u64], kind, bytes| {
        llama().tensor("blk.0.ffn_up.weight", dims, kind, bytes).bytes()
    };
    check(vec![
        (llama().u32("general.alignment", 0).bytes(), "general.alignment: expected a power of two"),
        (
            llama().u32("general.alignment", 48).bytes(),
            "general.alignment: expected a power of two",
        ),
        (
            llama().bytes_with(3, |offset| offset + 1),
            "tensor output_norm.weight: offset 1 is not aligned",
        ),
        (llama().bytes_with(3, |_| 0), "overlap those of"),
        (
            llama().bytes_with(3, |offset| offset + (1 << 40)),
            "tensor output_norm.weight: its bytes",
        ),
        (llama().bytes_with(3, |_| u64::MAX - 31), "tensor output_norm.weight: "),
        (good[..good.len() - 1].to_vec(), "tensor blk.0.ffn_down.weight: its bytes"),
        (one_tensor(&[u64::MAX, 2], 0, vec![]), "tensor blk.0.ffn_up.weight: shape"),
        (one_tensor(&[1 << 30, 1 << 30, 1 << 30], 0, vec![]), "tensor blk.0.ffn_up.weight: shape"),
        (one_tensor(&[1 << 30, 1 << 20], 0, vec![]), "tensor blk.0.ffn_up.weight: its bytes"),
        (
            one_tensor(&[48, 2], Q4_0, vec![0; 54]),
            "rows of 48 elements are no whole number of blocks of 32",
        ),
        (
            llama().tensor("blk.0.attn_q.bias", &[64], Q8_0, vec![0; 68]).bytes(),
            "tensor blk.0.attn_q.bias: element type of blocks for a vector",
        ),
    ]);
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    let small = llama().without_tensor("token_embd.weight").u32("llama.vocab_size", 3);
    let good = small.bytes();
    let header_len = good.len() - 64 * 4 * 3 - 7 * 2048;
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for len in (0..header_len).step_by(5) {
        fs::write(&path, &good[..len]).unwrap();
        assert!(open(&path, PACKED).is_err(), "{len} bytes open");
    }
    for at in 0..header_len {
        let mut bytes = good.clone();
        bytes[at] ^= [0x01, 0x40, 0xff][at % 3];
        fs::write(&path, &bytes).unwrap();
        let opened = open(&path, PACKED);
        assert!(opened.is_ok() || !opened.err().unwrap().to_string().is_empty());
    }
}
