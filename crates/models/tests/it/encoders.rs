//! BERT and XLM-RoBERTa: outputs of numpy in f64.

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path, rc::Rc};

use attention::{BatchInputs, Extent, ForwardBatch, ForwardMode, KvPool, KvPoolConfig};
use mlx::{Array, Dtype};
use models::{CausalLm, Pooled, PooledRows};
use serde_json::Value;

use crate::{pooled::load, runner::distance, tiny::values};

fn golden(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/encoders");
    let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<i32> {
    numbers(value).iter().map(|&id| id as i32).collect()
}

/// Names and shapes below the prefix.
fn shapes(config: &Value) -> Vec<(String, Vec<usize>)> {
    let size = |field: &str| config[field].as_u64().unwrap() as usize;
    let (hidden, inner) = (size("hidden_size"), size("intermediate_size"));
    let mut shapes: Vec<(String, Vec<usize>)> = [
        ("word_embeddings", size("vocab_size")),
        ("position_embeddings", size("max_position_embeddings")),
        ("token_type_embeddings", size("type_vocab_size")),
    ]
    .map(|(name, rows)| (format!("embeddings.{name}.weight"), vec![rows, hidden]))
    .into();
    let norm = |at: String| ["weight", "bias"].map(|part| (format!("{at}.{part}"), vec![hidden]));
    let linear = |at: String, (rows, cols): (usize, usize)| {
        [(format!("{at}.weight"), vec![rows, cols]), (format!("{at}.bias"), vec![rows])]
    };
    shapes.extend(norm("embeddings.LayerNorm".to_owned()));
    for layer in 0..size("num_hidden_layers") {
        let at = format!("encoder.layer.{layer}");
        for name in ["self.query", "self.key", "self.value", "output.dense"] {
            shapes.extend(linear(format!("{at}.attention.{name}"), (hidden, hidden)));
        }
        shapes.extend(linear(format!("{at}.intermediate.dense"), (inner, hidden)));
        shapes.extend(linear(format!("{at}.output.dense"), (hidden, inner)));
        shapes.extend(norm(format!("{at}.attention.output.LayerNorm")));
        shapes.extend(norm(format!("{at}.output.LayerNorm")));
    }
    shapes
}

/// With what checkpoints hold besides.
fn checkpoint(config: &Value) -> BTreeMap<String, Array> {
    let hidden = config["hidden_size"].as_u64().unwrap() as usize;
    let architecture = config["architectures"][0].as_str().unwrap();
    let (prefix, head) = match architecture {
        "BertForSequenceClassification" => ("bert.", ["bert.pooler.dense", "classifier"]),
        "XLMRobertaForSequenceClassification" => {
            ("roberta.", ["classifier.dense", "classifier.out_proj"])
        }
        _ => ("", [""; 2]),
    };
    let has_head = !prefix.is_empty();
    let below = |(name, shape): (String, Vec<usize>)| (format!("{prefix}{name}"), shape);
    let mut all: Vec<_> = shapes(config).into_iter().map(below).collect();
    if has_head {
        for (name, rows) in head.into_iter().zip([hidden, 1]) {
            all.push((format!("{name}.weight"), vec![rows, hidden]));
            all.push((format!("{name}.bias"), vec![rows]));
        }
    } else {
        all.push(("embeddings.position_ids".to_owned(), vec![1, 8]));
        all.push(("pooler.dense.weight".to_owned(), vec![hidden, hidden]));
    }
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let gain = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let values = values(&name, shape.iter().product());
        let values: Vec<f32> = values.into_iter().map(|value| value + gain).collect();
        let array = Array::from_slice(&values, &shape).unwrap();
        (name, array)
    };
    all.into_iter().map(tensor).collect()
}

/// Outputs of the tokens `sampled`, for texts end to end; several only of an encoder.
pub(crate) fn run(model: &dyn CausalLm, texts: &[&[i32]], sampled: Vec<i32>) -> Vec<f32> {
    run_typed(model, texts, sampled, None)
}

/// The same with types of the tokens.
fn run_typed(
    model: &dyn CausalLm,
    texts: &[&[i32]],
    sampled: Vec<i32>,
    token_types: Option<Vec<i32>>,
) -> Vec<f32> {
    let config = KvPoolConfig {
        num_pages: 4,
        num_window_pages: None,
        page_size: 16,
        dtype: Dtype::Float32.into(),
        max_buffer_bytes: None,
    };
    let layers = model.kv_layout();
    let pool = Rc::new(RefCell::new(KvPool::new(&layers, &config).unwrap()));
    let backend = attention::build("mlx", "mlx", &layers, config.dtype).unwrap();
    let (mut extents, mut positions, mut start) = (Vec::new(), Vec::new(), 0);
    for text in texts {
        extents.push(Extent { start, len: text.len(), prefix_len: 0, pages: vec![0, 1] });
        positions.extend(0..text.len() as i32);
        start += text.len();
    }
    let ids = texts.concat();
    let inputs = BatchInputs {
        mode: ForwardMode::Extend,
        input_ids: Array::from_slice(&ids, &[ids.len()]).unwrap(),
        out_cache_loc: (0..ids.len() as i32).collect(),
        positions,
        extents,
        windows: None,
        sampled_rows: sampled,
        states: None,
        token_types,
    };
    let batch = ForwardBatch::new(inputs, backend, pool).unwrap();
    model.forward(&batch).unwrap().to_vec().unwrap()
}

#[test]
fn outputs_are_those_of_numpy_alone_and_beside_another_text() {
    for name in ["bert", "xlm-roberta", "xlm-roberta-labels"] {
        let golden = golden(name);
        let (config, prompt) = (&golden["config"], ids(&golden["prompt"]));
        let Pooled { model, rows, is_encoder } = load(config, &checkpoint(config)).unwrap();
        assert!(is_encoder && model.kv_layout().is_empty());
        let has_head = name.ends_with("labels");
        let labels = vec!["LABEL_0".to_owned()];
        let expected = if has_head { PooledRows::Scores { labels } } else { PooledRows::Hidden };
        assert_eq!(rows, expected, "{name}");
        let rows = ids(&golden["rows"]);
        let outputs = golden["outputs"].as_array().unwrap();
        let expected: Vec<f32> = outputs.iter().flat_map(numbers).collect();
        let off = distance(&run(model.as_ref(), &[&prompt], rows.clone()), &expected);
        assert!(off < 2e-4, "{name}: off by {off}");
        let after = rows.iter().map(|row| row + 7).collect();
        let off = distance(&run(model.as_ref(), &[&prompt[..7], &prompt], after), &expected);
        assert!(off < 2e-4, "{name}: off by {off} after another text");
        let context = if name == "bert" { 48 } else { 46 };
        assert_eq!(model.context_length(), context);
    }
}

#[test]
fn scores_of_pairs_are_those_of_transformers() {
    for name in ["bert-pair", "bert-pair-sigmoid", "xlm-roberta-pair"] {
        let golden = golden(name);
        let (config, prompt) = (&golden["config"], ids(&golden["prompt"]));
        let second = golden["second_text"].as_u64().unwrap() as usize;
        let Pooled { model, .. } = load(config, &checkpoint(config)).unwrap();
        let types: Vec<i32> = (0..prompt.len()).map(|at| i32::from(at >= second)).collect();
        let expected = numbers(&golden["outputs"][0]);
        let off = |texts: &[&[i32]], at, types| {
            distance(&run_typed(model.as_ref(), texts, vec![at], Some(types)), &expected)
        };
        let alone = off(&[&prompt], 0, types.clone());
        assert!(alone < 2e-4, "{name}: off by {alone}");
        let after = off(&[&prompt[..7], &prompt], 7, [vec![0; 7], types].concat());
        assert!(after < 2e-4, "{name}: off by {after} after another text");
        let without = distance(&run(model.as_ref(), &[&prompt], vec![0]), &expected);
        let has_types = name.starts_with("bert");
        assert_eq!(without > 2e-3, has_types, "{name}: off by {without} without types");
    }
    let mut config = golden("bert-pair")["config"].clone();
    config["sbert_ce_default_activation_function"] = "torch.nn.modules.activation.Tanh".into();
    let error = load(&config, &checkpoint(&config)).err().unwrap().to_string();
    assert!(error.ends_with("only Identity and Sigmoid are supported"), "{error}");
}

#[test]
fn relative_positions_are_refused() {
    let mut config = golden("bert")["config"].clone();
    config["position_embedding_type"] = "relative_key".into();
    let error = load(&config, &BTreeMap::new()).err().unwrap().to_string();
    assert_eq!(
        error,
        "config.json: position_embedding_type: relative_key is not supported (absolute is)"
    );
}
