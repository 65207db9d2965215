//! The forms of a checkpoint against each other, and one against the formulas.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use mlx::{
    Dtype,
    device::{self, DeviceKind},
    quantized::{QuantMode, quantize},
};

use super::*;
use crate::{LoadOptions, Unpack, WeightSink, WeightStore, held::Held};

const DIMS: MoeDims = MoeDims { num_experts: 6, hidden: 64, inner: 32 };
const TOP_K: TopK = TopK { top_k: 2, renormalize: true };
/// So low that it matters.
const LIMIT: f32 = 0.4;

fn numbers(seed: usize, shape: &[usize]) -> Array {
    let len: usize = shape.iter().product();
    let value = |i: usize| ((i * 7 + seed * 13 + i * i % 11) % 61) as f32 / 64.0 - 0.5;
    Array::from_slice(&(0..len).map(value).collect::<Vec<_>>(), shape).unwrap()
}

/// Weight and bias of gates, values and outputs.
fn stacks() -> [(Array, Array); 3] {
    let MoeDims { num_experts, hidden, inner } = DIMS;
    [(inner, hidden), (inner, hidden), (hidden, inner)].map(|(rows, columns)| {
        let weight = numbers(rows + columns, &[num_experts, rows, columns]);
        (weight, numbers(rows * 3, &[num_experts, rows]))
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Mlx,
    Columns,
    Turns,
}

type Tensors = Vec<(String, Array)>;

fn named(form: Form, is_packed: bool) -> Tensors {
    let [gate, up, down] = stacks();
    let turns = |gate: &Array, up: &Array| {
        let shape = gate.shape();
        let rows = [&[shape[0], 2 * shape[1]], &shape[2..]].concat();
        Array::stack(&[gate, up], 2).unwrap().reshape(&rows).unwrap()
    };
    let module = |name: &str, weight: &Array| -> Tensors {
        if !is_packed {
            return vec![(format!("{name}.weight"), weight.clone())];
        }
        let packed = quantize(weight, 32, 4, QuantMode::Mxfp4).unwrap();
        [("weight", packed.weight), ("scales", packed.scales)]
            .map(|(part, array)| (format!("{name}.{part}"), array))
            .into()
    };
    let gate_up = (turns(&gate.0, &up.0), turns(&gate.1, &up.1));
    let columns = |array: &Array| array.transpose(&[0, 2, 1]).unwrap();
    let published_biases = [
        ("gate_up_proj_bias".to_owned(), gate_up.1),
        ("down_proj_bias".to_owned(), down.1.clone()),
    ];
    match form {
        Form::Mlx => STACKS
            .iter()
            .zip([gate, up, down])
            .flat_map(|(name, (weight, bias))| {
                module(name, &weight).into_iter().chain([(format!("{name}.bias"), bias)])
            })
            .collect(),
        Form::Columns => published_biases
            .into_iter()
            .chain([
                ("gate_up_proj".to_owned(), columns(&gate_up.0)),
                ("down_proj".to_owned(), columns(&down.0)),
            ])
            .collect(),
        Form::Turns => published_biases
            .into_iter()
            .chain(module("gate_up_proj", &gate_up.0))
            .chain(module("down_proj", &down.0))
            .collect(),
    }
}

#[derive(Default, Clone)]
struct Heard(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl WeightSink for Heard {
    fn tensor(&mut self, name: &str, array: &Array) -> std::result::Result<(), LoadError> {
        let bytes = array.flatten(0, -1)?.view(Dtype::Uint8)?.to_vec()?;
        assert!(self.0.borrow_mut().insert(name.to_owned(), bytes).is_none(), "{name} twice");
        Ok(())
    }

    fn packed(&mut self, path: &str, parts: &LinearWeight) -> std::result::Result<(), LoadError> {
        let LinearWeight::Quantized { weight, scales, .. } = parts else { panic!() };
        self.tensor(&format!("{path}.weight"), weight)?;
        self.tensor(&format!("{path}.scales"), scales)
    }
}

/// The layer, and what it told of its weights.
fn load(form: Form, is_packed: bool, unpack: Unpack) -> (FusedMoe, BTreeMap<String, Vec<u8>>) {
    device::set_default(DeviceKind::Cpu).unwrap();
    let options = LoadOptions { compute_dtype: Dtype::Float32, unpack };
    let mut store = WeightStore::new(options);
    for (name, array) in named(form, is_packed) {
        store.insert(format!("experts.{name}"), Held::boxed(array)).unwrap();
    }
    let (weights, heard) = (Weights::new(store), Heard::default());
    weights.set_sink(Box::new(heard.clone()));
    let moe = FusedMoe::load_clamped(&weights.at("experts"), DIMS, TOP_K, LIMIT).unwrap();
    weights.finish(&[]).unwrap();
    (moe, heard.0.take())
}

/// One token at a time, one expert at a time, in f64.
fn reference(x: &Array, logits: &Array) -> Vec<f64> {
    let values = |array: &Array| -> Vec<f64> {
        array.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
    };
    let stacks = stacks().map(|(weight, bias)| (values(&weight), values(&bias)));
    let product = |stack: usize, expert: usize, x: &[f64]| -> Vec<f64> {
        let (weight, bias) = &stacks[stack];
        let rows = bias.len() / DIMS.num_experts;
        let weight = weight[expert * rows * x.len()..].chunks(x.len());
        let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        weight.zip(&bias[expert * rows..][..rows]).map(|(row, bias)| dot(row) + bias).collect()
    };
    let limit = f64::from(LIMIT);
    let mut out = Vec::new();
    for (x, logits) in values(x).chunks(DIMS.hidden).zip(values(logits).chunks(DIMS.num_experts)) {
        let mut order: Vec<usize> = (0..DIMS.num_experts).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(TOP_K.top_k);
        let total: f64 = order.iter().map(|&expert| logits[expert].exp()).sum();
        let mut sum = vec![0.0; DIMS.hidden];
        for expert in order {
            let (gates, ups) = (product(0, expert, x), product(1, expert, x));
            let inner = gates.iter().zip(&ups).map(|(gate, up)| {
                let gate = gate.min(limit);
                (up.clamp(-limit, limit) + 1.0) * gate / (1.0 + (-1.702 * gate).exp())
            });
            let inner: Vec<f64> = inner.collect();
            for (sum, value) in sum.iter_mut().zip(product(2, expert, &inner)) {
                *sum += value * logits[expert].exp() / total;
            }
        }
        out.extend(sum);
    }
    out
}

#[test]
fn results_are_those_of_the_formulas() {
    for form in [Form::Mlx, Form::Columns, Form::Turns] {
        let (moe, _) = load(form, false, Unpack::Never);
        for rows in [1, 5, 60] {
            let (x, logits) = (numbers(56, &[rows, 64]), numbers(57, &[rows, 6]));
            let expected = reference(&x, &logits);
            let ours = moe.forward(&x, &logits).unwrap();
            for out in [ours, moe.forward_by_mlx(&x, &logits).unwrap()] {
                let out = out.to_vec::<f32>().unwrap();
                let off = out.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs());
                let off = off.fold(0.0, f64::max);
                assert!(off < 1e-5, "{rows} rows: off by {off}");
            }
        }
    }
}

#[test]
fn forms_of_a_checkpoint_are_one() {
    let forms = [(Form::Columns, false), (Form::Turns, false), (Form::Turns, true)];
    for (form, is_packed) in forms {
        for unpack in [Unpack::Never, Unpack::Always] {
            let (expected, told) = load(Form::Mlx, is_packed, unpack);
            let (found, heard) = load(form, is_packed, unpack);
            // Nobody listens where matrices are unpacked.
            if unpack == Unpack::Never {
                assert_eq!(heard.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
                assert_eq!(heard, told);
            }
            let (x, logits) = (numbers(56, &[7, 64]), numbers(57, &[7, 6]));
            let [expected, found] = [expected, found]
                .map(|moe| moe.forward(&x, &logits).unwrap().to_vec::<f32>().unwrap());
            assert_eq!(found, expected);
        }
    }
}
