//! Models that give vectors: hidden states and scores of mlx-lm and numpy in f32.

use std::{collections::BTreeMap, fs, path::Path};

use mlx::{Array, Dtype};
use models::{HfConfig, Pooled, PooledRows};
use nn::{LoadError, LoadOptions, Unpack, WeightStore, Weights};
use serde_json::{Value, json};

use crate::{
    encoders::run,
    runner::distance,
    tiny::{InMemory, checkpoint, values},
};

struct Golden {
    name: String,
    config: Value,
    /// Names come without `model.`.
    bare: bool,
    prompt: Vec<i32>,
    vector: Vec<f32>,
}

fn goldens() -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/pooled");
    let mut paths: Vec<_> = fs::read_dir(root).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let goldens: Vec<Golden> = paths.iter().map(|path| Golden::read(path)).collect();
    assert_eq!(goldens.len(), 7);
    goldens
}

impl Golden {
    fn read(path: &Path) -> Self {
        let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let numbers = |field: &str| -> Vec<f64> {
            file[field].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            config: file["config"].clone(),
            bare: file["bare"].as_bool().unwrap(),
            prompt: numbers("prompt").iter().map(|&id| id as i32).collect(),
            vector: numbers("vector").iter().map(|&x| x as f32).collect(),
        }
    }

    fn architecture(&self) -> &str {
        self.config["architectures"][0].as_str().unwrap()
    }

    /// With the tensors of the head that the architecture has.
    fn tensors(&self) -> BTreeMap<String, Array> {
        let mut tensors = checkpoint(&self.config);
        let hidden = self.config["hidden_size"].as_u64().unwrap() as usize;
        let head: &[(&str, &[usize])] = match self.architecture() {
            name if name.ends_with("ForSequenceClassification") => {
                &[("score.weight", &[3, hidden])]
            }
            name if name.ends_with("ForRewardModel") => &[
                ("score.0.weight", &[hidden, hidden]),
                ("score.0.bias", &[hidden]),
                ("score.2.weight", &[1, hidden]),
                ("score.2.bias", &[1]),
            ],
            _ => &[],
        };
        for (name, shape) in head {
            let array = Array::from_slice(&values(name, shape.iter().product()), shape).unwrap();
            tensors.insert((*name).to_owned(), array);
        }
        let bare = |name: String| name.strip_prefix("model.").unwrap_or(&name).to_owned();
        match self.bare {
            true => tensors.into_iter().map(|(name, array)| (bare(name), array)).collect(),
            false => tensors,
        }
    }
}

pub(crate) fn load(config: &Value, tensors: &BTreeMap<String, Array>) -> Result<Pooled, LoadError> {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let config = HfConfig::from_json(&config.to_string())?;
    let options = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::WithoutKernel };
    let mut store = WeightStore::new(options);
    store.set_quant(config.quant().clone());
    for (name, array) in tensors {
        store.insert(name.as_str(), Box::new(InMemory::new(array.clone())))?;
    }
    models::load_pooled(&config, &Weights::new(store))
}

#[test]
fn vectors_are_those_of_mlx_lm() {
    for golden in goldens() {
        let Pooled { model, rows, is_encoder } = load(&golden.config, &golden.tensors()).unwrap();
        assert!(!is_encoder);
        let expected_rows = match golden.architecture() {
            name if name.ends_with("ForSequenceClassification") => {
                PooledRows::Scores { labels: ["bad", "fair", "good"].map(str::to_owned).into() }
            }
            name if name.ends_with("ForRewardModel") => {
                PooledRows::Scores { labels: vec!["LABEL_0".to_owned()] }
            }
            _ => PooledRows::Hidden,
        };
        assert_eq!(rows, expected_rows, "{}", golden.name);
        let last = golden.prompt.len() as i32 - 1;
        let vector = run(model.as_ref(), &[&golden.prompt], vec![last]);
        let off = distance(&vector, &golden.vector);
        assert!(off < 2e-4, "{}: off by {off}", golden.name);
    }
}

#[test]
fn what_gives_no_vectors_or_lacks_its_head_is_named() {
    let error = |config: &Value, tensors: &BTreeMap<String, Array>| {
        load(config, tensors).err().expect("an error").to_string()
    };
    let golden = goldens().into_iter().find(|golden| golden.name == "qwen2-reward").unwrap();
    let mut tensors = golden.tensors();
    tensors.remove("score.2.bias");
    assert_eq!(
        error(&golden.config, &tensors),
        "weight score.2.bias is missing from the checkpoint"
    );
    let golden = crate::tiny::golden("olmo2");
    assert_eq!(
        error(&golden.config, &checkpoint(&golden.config)),
        "config.json: architectures: OLMo 2 gives no embeddings or scores"
    );
    let unknown = json!({"architectures": ["OptModel"]});
    assert!(error(&unknown, &BTreeMap::new()).contains("OptModel is not known (known: "));
}
