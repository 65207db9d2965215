//! Every method against goldens of `tools/oracle/imports.py`, and what is refused.

use std::{collections::BTreeMap, fs, path::Path};

use half::{bf16, f16};
use mlx::{Array, Dtype};
use nn::{LinearWeight, LoadOptions, Unpack, Weights};
use serde_json::{Map, Value, json};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::{
    LoadedModel, LoaderOptions, ModelSource, Quiet,
    test_files::{Raw, safetensors},
};

/// Name to element type and shape, as in a file.
type Stored = BTreeMap<String, (String, Vec<usize>)>;

struct Golden {
    name: String,
    config: Value,
    stored: Stored,
    tensors: BTreeMap<String, (String, Vec<usize>, String)>,
}

fn goldens() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata-imports");
    let read = |path: &Path| {
        let mut file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        Golden {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            config: file["config"].take(),
            stored: serde_json::from_value(file["stored"].take()).unwrap(),
            tensors: serde_json::from_value(file["tensors"].take()).unwrap(),
        }
    };
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn golden(name: &str) -> Golden {
    goldens().into_iter().find(|golden| golden.name == name).unwrap()
}

/// The upper byte of a hash of the name and the place.
fn random_bytes(name: &str, count: usize) -> Vec<u8> {
    let digest = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    let byte = |place: u64| {
        let mut x = digest.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 56) as u8
    };
    (1..=count as u64).map(byte).collect()
}

/// The bytes of a stored tensor, see `stored` in the script.
fn bytes(name: &str, dtype: &str, shape: &[usize]) -> Vec<u8> {
    let count = shape.iter().product::<usize>();
    let is_signed = name.contains("embed_tokens") || name.contains("lm_head");
    let floats = || {
        let bytes = random_bytes(name, count).into_iter();
        let offset = if is_signed { -64.0 } else { 128.0 };
        bytes.map(move |byte| (offset + f32::from(byte & 127)) / 256.0)
    };
    match dtype {
        _ if name.ends_with("g_idx") => {
            (0..count as i32).flat_map(|place| (place / 64).to_le_bytes()).collect()
        }
        "F32" => floats().flat_map(f32::to_le_bytes).collect(),
        "F16" => floats().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        "BF16" => floats().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        "F8_E4M3" => {
            let number = |byte: u8| if byte & 127 == 127 { byte ^ 1 } else { byte };
            random_bytes(name, count).into_iter().map(number).collect()
        }
        "F8_E8M0" => random_bytes(name, count).into_iter().map(|byte| byte % 16 + 120).collect(),
        "U8" => random_bytes(name, count),
        "I32" | "U32" => random_bytes(name, count * 4),
        "I64" => random_bytes(name, count * 8),
        other => panic!("{other}"),
    }
}

impl Golden {
    fn folder(&self) -> TempDir {
        let folder = tempdir().unwrap();
        let tensors: Vec<Raw<'_>> = self
            .stored
            .iter()
            .map(|(name, (dtype, shape))| {
                (name.as_str(), dtype.as_str(), &shape[..], bytes(name, dtype, shape))
            })
            .collect();
        fs::write(folder.path().join("model.safetensors"), safetensors(&tensors)).unwrap();
        fs::write(folder.path().join("config.json"), self.config.to_string()).unwrap();
        folder
    }

    fn load(&self) -> Result<LoadedModel, LoadError> {
        let plain = &self.tensors["model.norm.weight"].0;
        let dtype = if plain == "float16" { Dtype::Float16 } else { Dtype::Bfloat16 };
        load(&self.folder(), dtype)
    }

    /// Of all tensors after the import.
    fn bytes(&self) -> usize {
        let size = |dtype: &str| match dtype {
            "uint32" => 4,
            "uint8" => 1,
            _ => 2,
        };
        let bytes = |(dtype, shape, _): &(String, Vec<usize>, String)| {
            size(dtype) * shape.iter().product::<usize>()
        };
        self.tensors.values().map(bytes).sum()
    }

    fn error(&self) -> String {
        self.load().err().expect("it is refused").to_string()
    }

    fn settings(&mut self) -> &mut Map<String, Value> {
        self.config["quantization_config"].as_object_mut().unwrap()
    }

    /// Another element type and shape for a tensor of the first module.
    fn restore(&mut self, part: &str, dtype: &str, shape: &[usize]) {
        let name = format!("{QUERY}.{part}");
        self.stored.insert(name, (dtype.to_owned(), shape.to_vec()));
    }
}

const QUERY: &str = "model.layers.0.self_attn.q_proj";

fn load(folder: &TempDir, compute_dtype: Dtype) -> Result<LoadedModel, LoadError> {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let source = ModelSource::resolve(folder.path().to_str().unwrap(), None)?;
    let options = LoadOptions { compute_dtype, unpack: Unpack::Never };
    crate::load(&source, &LoaderOptions::new(options), &Quiet)
}

/// Sum of `(byte + 1) * FACTOR^place`, modulo 2^64.
fn digest(array: &Array) -> String {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let bytes = array.flatten(0, -1).unwrap().view(Dtype::Uint8).unwrap().to_vec::<u8>().unwrap();
    let mut power = 1_u64;
    let sum = bytes.iter().fold(0_u64, |sum, &byte| {
        power = power.wrapping_mul(FACTOR);
        sum.wrapping_add((u64::from(byte) + 1).wrapping_mul(power))
    });
    format!("{sum:016x}")
}

/// What a model gets of one module.
fn parts(weights: &Weights, path: &str, words: &[usize], bits: usize) -> Vec<(String, Array)> {
    let named = |part: &str, array| (format!("{path}.{part}"), array);
    let weights = weights.at(path);
    if !weights.has("scales") {
        return vec![named("weight", weights.take("weight", words).unwrap())];
    }
    match weights.linear_parts(words[1] * 32 / bits, words[0]).unwrap() {
        LinearWeight::Dense(weight) => vec![named("weight", weight)],
        LinearWeight::Quantized { weight, scales, biases, .. } => {
            let mut parts = vec![named("weight", weight), named("scales", scales)];
            parts.extend(biases.map(|biases| named("biases", biases)));
            parts
        }
    }
}

#[test]
fn tensors_are_those_of_the_oracle() {
    let goldens = goldens();
    assert!(goldens.len() >= 19, "{}", goldens.len());
    for golden in &goldens {
        let opened = golden.load().unwrap();
        let bits = opened.config.quant().default_spec().map_or(0, |spec| spec.bits);
        assert_eq!(opened.weights.stored_bytes(), golden.bytes(), "{}", golden.name);
        assert_eq!(
            opened.imported_from.unwrap(),
            golden.config["quantization_config"]["quant_method"]
        );
        let entry = |array: &Array| (array.dtype().name().to_owned(), array.shape(), digest(array));
        let mut found = BTreeMap::new();
        for (name, (_, shape, _)) in &golden.tensors {
            if let Some(path) = name.strip_suffix(".weight") {
                let parts = parts(&opened.weights, path, shape, bits);
                found.extend(parts.into_iter().map(|(name, array)| (name, entry(&array))));
            } else if name.ends_with("_bias") {
                let array = opened.weights.take_as_stored(name, shape).unwrap();
                found.insert(name.clone(), entry(&array));
            }
        }
        for (name, expected) in &golden.tensors {
            assert_eq!(found.get(name), Some(expected), "{}: {name}", golden.name);
        }
        assert_eq!(found.len(), golden.tensors.len(), "{}", golden.name);
        opened.weights.finish(&[]).unwrap();
    }
}

#[test]
fn every_method_has_its_golden() {
    assert!(METHODS.is_sorted_by_key(|method| method.name));
    let goldens = goldens();
    let named =
        |golden: &Golden, name: &str| golden.config["quantization_config"]["quant_method"] == name;
    for method in METHODS {
        // Another name for FP8 with a scale for each output.
        let name = if method.name == "fbgemm_fp8" { "fp8" } else { method.name };
        assert!(goldens.iter().any(|golden| named(golden, name)), "{name}");
    }
}

#[test]
fn settings_that_cannot_be_imported_are_refused_by_name() {
    for (case, field, value, expected) in [
        ("awq", "bits", json!(8), "awq: bits 8"),
        ("awq", "version", json!("gemv"), "awq: version \"gemv\""),
        ("awq", "group_size", json!(16), "awq: group_size 16"),
        ("gptq", "bits", json!(3), "gptq: bits 3"),
        ("gptq", "group_size", json!(-2), "gptq: group_size -2"),
        ("gptq", "checkpoint_format", json!("marlin"), "gptq: checkpoint_format \"marlin\""),
        ("fp8-blocks", "fmt", json!("e5m2"), "fp8: fmt \"e5m2\""),
        ("fp8-blocks", "weight_block_size", json!([128]), "fp8: weight_block_size [128]"),
        ("modelopt-nvfp4", "quant_algo", json!("W4A8_AWQ"), "modelopt: quant_algo \"W4A8_AWQ\""),
        ("modelopt-nvfp4", "group_size", json!(32), "modelopt: group_size 32"),
        ("ct-int4", "format", json!("marlin-24"), "compressed-tensors: format \"marlin-24\""),
        (
            "ct-int4",
            "config_groups",
            json!({"a": {"weights": {"num_bits": 4, "strategy": "tensor"}}}),
            "compressed-tensors: strategy \"tensor\"",
        ),
        (
            "ct-int4",
            "config_groups",
            json!({"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}),
            "compressed-tensors: config_groups {\"a\":{\"weights\":{\"num_bits\":4}},\
             \"b\":{\"weights\":{\"num_bits\":8}}}",
        ),
    ] {
        let mut golden = golden(case);
        golden.settings().insert(field.to_owned(), value);
        assert_eq!(golden.error(), format!("quantization method {expected} is not supported"));
    }
    let mut golden = golden("awq");
    golden.settings().insert("quant_method".to_owned(), json!("bitnet"));
    assert_eq!(golden.error(), "quantization method \"bitnet\" is not supported");
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    for (case, (part, dtype, shape), method, problem) in [
        ("awq", ("scales", "F16", &[3, 120][..]), "awq", "scales has shape [3, 120], which"),
        ("awq", ("qzeros", "I32", &[2, 128]), "awq", "qzeros has shape [2, 128], which"),
        ("gptq", ("qzeros", "F32", &[2, 16]), "gptq", "qzeros has an element type that"),
        ("fp8-blocks", ("weight", "I32", &[128, 128]), "fp8", "weight has an element type"),
        ("fp8-blocks", ("weight_scale_inv", "F32", &[2, 1]), "fp8", "weight_scale_inv has shape"),
        ("fp8-ue8m0", ("weight_scale_inv", "F32", &[4, 3]), "fp8", "weight_scale_inv has shape"),
        (
            "ct-nvfp4",
            ("weight_global_scale", "F32", &[2]),
            "compressed-tensors",
            "weight_global_scale has shape [2], which",
        ),
    ] {
        let mut golden = golden(case);
        golden.restore(part, dtype, shape);
        let error = golden.error();
        let expected = format!("quantization method {method}: tensor {QUERY}.{problem}");
        assert!(error.starts_with(&expected), "{case}: {error}");
    }
    for (part, dtype, shape, problem) in [
        ("blocks", "I32", &[128, 4, 16][..], "has an element type that"),
        ("blocks", "U8", &[128, 4, 8], "has shape [128, 4, 8], which"),
        ("blocks", "U8", &[128, 3, 16], "has shape [128, 3, 16], which"),
        ("scales", "F32", &[128, 4], "has an element type that"),
    ] {
        let (mut golden, name) = (golden("mxfp4-blocks"), format!("{QUERY}_{part}"));
        golden.stored.insert(name.clone(), (dtype.to_owned(), shape.to_vec()));
        let (error, expected) = (golden.error(), format!("method mxfp4: tensor {name} {problem}"));
        assert!(error.contains(&expected), "{error}");
    }
    let mut golden = golden("gptq");
    golden.stored.remove(&format!("{QUERY}.scales")).unwrap();
    let expected = format!("quantization method gptq: tensor {QUERY}.scales is missing");
    assert_eq!(golden.error(), expected);
}

#[test]
fn groups_in_another_order_are_refused_on_reading() {
    let mut golden = golden("gptq-rows");
    golden.restore("g_idx", "I32", &[128]);
    let opened = golden.load().unwrap();
    let error = opened.weights.at(QUERY).linear_parts(128, 128).err().unwrap();
    assert_eq!(error.to_string(), format!("weight {QUERY}.weight cannot be read"));
    let source = std::error::Error::source(&error).unwrap().to_string();
    let expected = "g_idx orders the groups by activation, which is not supported";
    assert_eq!(source, format!("quantization method gptq: tensor {QUERY}.{expected}"));
}

#[test]
fn settings_of_modelopt_in_a_file_of_their_own() {
    let mut golden = golden("modelopt-nvfp4");
    let settings = golden.config.as_object_mut().unwrap().remove("quantization_config").unwrap();
    let folder = golden.folder();
    let nested = json!({"producer": {"name": "modelopt"}, "quantization": settings});
    fs::write(folder.path().join("hf_quant_config.json"), nested.to_string()).unwrap();
    let opened = load(&folder, Dtype::Bfloat16).unwrap();
    let name = format!("{QUERY}.weight");
    let weight = opened.weights.take(&name, &[128, 128]).unwrap();
    assert_eq!(digest(&weight), golden.tensors[&name].2);
    assert_eq!(opened.config.quant().default_spec(), None);
}

#[test]
fn every_byte_is_its_number() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let all: Vec<u8> = (0..=255).collect();
    let all = Array::from_slice(&all, &[256]).unwrap();
    let numbers = float8::from_e4m3(&all).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(numbers[..4], [0.0, 0.001_953_125, 0.003_906_25, 0.005_859_375]);
    assert_eq!((numbers[7], numbers[8], numbers[0x38]), (0.013_671_875, 0.015_625, 1.0));
    assert_eq!((numbers[0x7E], numbers[0xFE]), (448.0, -448.0));
    assert!(numbers[0x7F].is_nan() && numbers[0xFF].is_nan());
    assert!(numbers[..0x7F].is_sorted() && (0..0x7F).all(|n| numbers[n] == -numbers[n + 0x80]));
    let powers = float8::from_e8m0(&all).unwrap().to_vec::<f32>().unwrap();
    assert_eq!((powers[127], powers[120], powers[254]), (1.0, 1.0 / 128.0, 2.0_f32.powi(127)));
    assert!(powers[0] > 0.0 && powers[255].is_nan());
}
