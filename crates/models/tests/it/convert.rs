//! What a model tells of its weights while they are packed: the names, types, shapes and
//! bytes that `mlx_lm.convert` writes (`tools/oracle/convert.py`).

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path, rc::Rc};

use mlx::{Array, Dtype};
use models::{HfConfig, MODELS, MixedRecipe, quant_rule};
use nn::{
    LinearWeight, LoadError, LoadOptions, QuantSpec, QuantizeOnLoad, Unpack, WeightSink,
    WeightStore, Weights,
};
use serde_json::{Value, json};

use crate::tiny::{InMemory, checkpoint};

/// Name to type, shape and digest.
type Tensors = BTreeMap<String, (String, Vec<usize>, String)>;

#[derive(Default)]
struct Heard {
    tensors: Tensors,
    packed: BTreeMap<String, QuantSpec>,
}

struct Sink(Rc<RefCell<Heard>>);

impl WeightSink for Sink {
    fn tensor(&mut self, name: &str, array: &Array) -> Result<(), LoadError> {
        let entry = (array.dtype().name().to_owned(), array.shape(), digest(array));
        let before = self.0.borrow_mut().tensors.insert(name.to_owned(), entry);
        assert!(before.is_none(), "{name} was told twice");
        Ok(())
    }

    fn packed(&mut self, path: &str, parts: &LinearWeight) -> Result<(), LoadError> {
        let LinearWeight::Quantized { weight, scales, biases, spec } = parts else { panic!() };
        self.0.borrow_mut().packed.insert(path.to_owned(), *spec);
        let parts =
            [("weight", Some(weight)), ("scales", Some(scales)), ("biases", biases.as_ref())];
        for (name, array) in parts {
            array.map_or(Ok(()), |array| self.tensor(&format!("{path}.{name}"), array))?;
        }
        Ok(())
    }
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

struct Golden {
    name: String,
    config: Value,
    settings: Value,
    quantization: Value,
    tensors: Tensors,
}

fn goldens() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata-convert");
    let read = |path: &Path| {
        let mut file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        Golden {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            config: file["config"].take(),
            settings: file["settings"].take(),
            quantization: file["quantization"].take(),
            tensors: serde_json::from_value(file["tensors"].take()).unwrap(),
        }
    };
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// The checkpoint in bfloat16, loaded as `mlx_lm.convert` is told to.
fn convert(golden: &Golden) -> Heard {
    let text = |setting: &str| golden.settings[setting].as_str();
    let number = |setting: &str| golden.settings[setting].as_u64().map(|value| value as usize);
    let dtype = match text("dtype") {
        None => Dtype::Bfloat16,
        Some("float16") => Dtype::Float16,
        Some("float32") => Dtype::Float32,
        Some(other) => panic!("{other}"),
    };
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let config = HfConfig::from_json(&golden.config.to_string()).unwrap();
    let options = LoadOptions { compute_dtype: dtype, unpack: Unpack::Never };
    let mut store = WeightStore::new(options);
    for (name, array) in checkpoint(&golden.config) {
        let array = array.astype(Dtype::Bfloat16).unwrap();
        store.insert(name, Box::new(InMemory::new(array))).unwrap();
    }
    let weights = Weights::new(store);
    if golden.settings["quantize"] == true {
        let mode = text("q_mode").unwrap_or("affine");
        let spec = QuantSpec::new(mode, number("q_group_size"), number("q_bits")).unwrap();
        let decoder = golden.config.get("text_config").unwrap_or(&golden.config);
        let layers = decoder["num_hidden_layers"].as_u64().unwrap() as usize;
        let recipe = text("quant_predicate").map(|name| name.parse::<MixedRecipe>().unwrap());
        weights.quantize_on_load(QuantizeOnLoad {
            spec,
            dtype: Some(dtype),
            choose: match recipe {
                Some(recipe) => Rc::new(recipe.rule(layers, spec)),
                None => Rc::new(quant_rule(&config).unwrap()),
            },
        });
    }
    let heard = Rc::new(RefCell::new(Heard::default()));
    weights.set_sink(Box::new(Sink(Rc::clone(&heard))));
    models::load(&config, &weights).unwrap();
    heard.take()
}

#[test]
fn packed_weights_are_those_of_mlx_lm() {
    let goldens = goldens();
    assert!(goldens.len() >= 18, "{}", goldens.len());
    for golden in &goldens {
        let heard = convert(golden);
        let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&heard.tensors), names(&golden.tensors), "{}", golden.name);
        for (name, (dtype, shape, digest)) in &golden.tensors {
            let found = &heard.tensors[name];
            assert_eq!((&found.0, &found.1), (dtype, shape), "{}: {name}", golden.name);
            // Elsewhere the last bits of scales differ, for mlx-lm too.
            if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
                assert_eq!(&found.2, digest, "{}: {name}", golden.name);
            }
        }
        let entry = |path: &str| golden.quantization.get(path).unwrap_or(&golden.quantization);
        for (path, QuantSpec { group_size, bits, .. }) in &heard.packed {
            let entry = entry(path);
            let expected = (&entry["group_size"], &entry["bits"]);
            assert_eq!(expected, (&json!(group_size), &json!(bits)), "{}: {path}", golden.name);
        }
    }
}

#[test]
fn every_family_is_converted() {
    for entry in MODELS {
        let is_there = goldens().iter().any(|golden| {
            entry.architectures.iter().any(|name| golden.config["architectures"][0] == *name)
        });
        assert!(is_there, "{:?}", entry.architectures);
    }
}

#[test]
fn dummy_weights_are_packed_as_asked() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let golden = goldens().into_iter().find(|golden| golden.name == "qwen3_moe").unwrap();
    let config = HfConfig::from_json(&golden.config.to_string()).unwrap();
    let options = LoadOptions { compute_dtype: Dtype::Bfloat16, unpack: Unpack::Never };
    let weights = Weights::new(WeightStore::dummy(options, config.quant().clone(), 1));
    let spec = QuantSpec::new("affine", None, Some(8)).unwrap();
    let choose = Rc::new(quant_rule(&config).unwrap());
    weights.quantize_on_load(QuantizeOnLoad { spec, dtype: None, choose });
    let parts = weights.at("model.layers.0.self_attn.q_proj").linear_parts(64, 128).unwrap();
    assert!(matches!(parts, LinearWeight::Quantized { spec: found, .. } if found == spec));
    let parts = weights.at("odd").linear_parts(96, 8).unwrap();
    assert!(matches!(parts, LinearWeight::Dense(_)), "96 is no multiple of 64");
}
