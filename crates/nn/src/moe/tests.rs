//! Against every expert's MLP by itself.

use mlx::{
    device::{self, DeviceKind},
    quantized::{QuantMode, quantize},
};

use super::*;
use crate::{LoadOptions, Unpack, WeightStore, held::Held};

const DIMS: MoeDims = MoeDims { num_experts: 6, hidden: 64, inner: 32 };
const NAMES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

fn numbers(seed: usize, shape: &[usize]) -> Array {
    let len: usize = shape.iter().product();
    let value = |i: usize| ((i * 7 + seed * 13 + i * i % 11) % 61) as f32 / 64.0 - 0.5;
    Array::from_slice(&(0..len).map(value).collect::<Vec<_>>(), shape).unwrap()
}

/// Matrix of an expert: gate and up `[inner, hidden]`, down `[hidden, inner]`.
fn matrix(expert: usize, name: usize) -> Array {
    let shape = if name == 2 { [DIMS.hidden, DIMS.inner] } else { [DIMS.inner, DIMS.hidden] };
    numbers(expert * 3 + name, &shape)
}

/// The experts, in one form or the other.
fn checkpoint(stacked: bool, bits: Option<usize>) -> Weights {
    let options = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::WithoutKernel };
    let mut store = WeightStore::new(options);
    let mut insert = |module: String, array: &Array| {
        let mut tensors = vec![("weight", array.clone())];
        if let Some(bits) = bits {
            let packed = quantize(array, 32, bits, QuantMode::Affine).unwrap();
            tensors = vec![
                ("weight", packed.weight),
                ("scales", packed.scales),
                ("biases", packed.biases.unwrap()),
            ];
        }
        for (name, array) in tensors {
            store.insert(format!("{module}.{name}"), Held::boxed(array)).unwrap();
        }
    };
    for (place, name) in NAMES.iter().enumerate() {
        let all: Vec<Array> = (0..DIMS.num_experts).map(|expert| matrix(expert, place)).collect();
        if stacked {
            let stack = Array::stack(&all.iter().collect::<Vec<_>>(), 0).unwrap();
            insert(format!("switch_mlp.{name}"), &stack);
        } else {
            for (expert, array) in all.iter().enumerate() {
                insert(format!("experts.{expert}.{name}"), array);
            }
        }
    }
    Weights::new(store)
}

fn load(stacked: bool, bits: Option<usize>, top_k: TopK) -> FusedMoe {
    device::set_default(DeviceKind::Cpu).unwrap();
    let weights = checkpoint(stacked, bits);
    let places = (&weights.at("switch_mlp"), &weights.at("experts"));
    let moe = FusedMoe::load(places, NAMES, DIMS, top_k, Activation::Silu).unwrap();
    weights.finish(&[]).unwrap();
    moe
}

/// One token at a time, one expert at a time, in f64.
fn reference(x: &Array, logits: &Array, top_k: TopK) -> Vec<f32> {
    let values = |array: &Array| -> Vec<f64> {
        array.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
    };
    let product = |matrix: &[f64], x: &[f64]| -> Vec<f64> {
        matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    let mut out = Vec::new();
    for (x, logits) in values(x).chunks(DIMS.hidden).zip(values(logits).chunks(DIMS.num_experts)) {
        let exps: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
        let mut order: Vec<usize> = (0..exps.len()).collect();
        order.sort_by(|&a, &b| exps[b].total_cmp(&exps[a]));
        order.truncate(top_k.top_k);
        let total: f64 = match top_k.renormalize {
            true => order.iter().map(|&expert| exps[expert]).sum(),
            false => exps.iter().sum(),
        };
        let mut sum = vec![0.0; DIMS.hidden];
        for &expert in &order {
            let [gate, up, down] = [0, 1, 2].map(|name| values(&matrix(expert, name)));
            let (gate, up) = (product(&gate, x), product(&up, x));
            let inner: Vec<f64> =
                gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            for (sum, value) in sum.iter_mut().zip(product(&down, &inner)) {
                *sum += value * exps[expert] / total;
            }
        }
        out.extend(sum.iter().map(|value| *value as f32));
    }
    out
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn few_and_many_rows_are_the_sums_of_experts() {
    for (renormalize, stacked) in [(true, true), (false, false)] {
        let top_k = TopK { top_k: 2, renormalize };
        let moe = load(stacked, None, top_k);
        for rows in [1, 5, 60] {
            let (x, logits) = (numbers(50, &[rows, 64]), numbers(51, &[rows, 6]));
            let logits = logits.mul_scalar(8.0).unwrap();
            let out = moe.forward(&x, &logits).unwrap();
            assert_eq!(out.shape(), [rows, 64]);
            let expected = reference(&x, &logits, top_k);
            for out in [out, moe.forward_by_mlx(&x, &logits).unwrap()] {
                let off = distance(&out.to_vec().unwrap(), &expected);
                assert!(off < 1e-4, "{rows} rows: off by {off}");
            }
        }
    }
}

#[test]
fn both_forms_of_a_checkpoint_are_one_model() {
    let top_k = TopK { top_k: 3, renormalize: true };
    for bits in [None, Some(4)] {
        let (x, logits) = (numbers(52, &[40, 64]), numbers(53, &[40, 6]));
        let [stacked, single] = [true, false].map(|stacked| {
            load(stacked, bits, top_k).forward(&x, &logits).unwrap().to_vec::<f32>().unwrap()
        });
        assert_eq!(stacked, single);
    }
}

/// Experts without gates, in both forms: with values as gates, squares of ReLU are gated
/// products, so the reference is that of gated experts whose gate is the value.
#[test]
fn experts_without_gates_are_the_sums_of_their_mlps() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let top_k = TopK { top_k: 2, renormalize: true };
    let load = |names: [&str; 3], is_gated: bool| {
        let options = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Never };
        let mut store = WeightStore::new(options);
        for (place, name) in names.iter().enumerate().skip(usize::from(!is_gated)) {
            let place = place.max(1);
            let all: Vec<Array> = (0..DIMS.num_experts).map(|n| matrix(n, place)).collect();
            if name.starts_with("fc") || is_gated {
                let stack = Array::stack(&all.iter().collect::<Vec<_>>(), 0).unwrap();
                store.insert(format!("switch_mlp.{name}.weight"), Held::boxed(stack)).unwrap();
                continue;
            }
            for (n, array) in all.into_iter().enumerate() {
                store.insert(format!("experts.{n}.{name}.weight"), Held::boxed(array)).unwrap();
            }
        }
        let weights = Weights::new(store);
        let places = (&weights.at("switch_mlp"), &weights.at("experts"));
        let moe = match is_gated {
            true => FusedMoe::load(places, names, DIMS, top_k, Activation::Relu),
            false => FusedMoe::load_ungated(places, DIMS, top_k, Activation::Relu2),
        };
        weights.finish(&[]).unwrap();
        moe.unwrap()
    };
    let gated = load(NAMES, true);
    for moe in [load(["", "fc1", "fc2"], false), load(["", "up_proj", "down_proj"], false)] {
        for rows in [3, 60] {
            let (x, logits) = (numbers(58, &[rows, 64]), numbers(59, &[rows, 6]));
            let expected: Vec<f32> = gated.forward(&x, &logits).unwrap().to_vec().unwrap();
            assert!(expected.iter().any(|value| value.abs() > 0.01));
            let ours = moe.forward(&x, &logits).unwrap();
            for out in [ours, moe.forward_by_mlx(&x, &logits).unwrap()] {
                let off = distance(&out.to_vec().unwrap(), &expected);
                assert!(off < 1e-4, "{rows} rows: off by {off}");
            }
        }
    }
}

#[test]
fn neighbours_do_not_show_bit_by_bit() {
    for bits in [None, Some(4)] {
        let moe = load(true, bits, TopK { top_k: 2, renormalize: true });
        let (x, logits) = (numbers(54, &[40, 64]), numbers(55, &[40, 6]));
        let all: Vec<f32> = moe.forward(&x, &logits).unwrap().to_vec().unwrap();
        for token in [0, 17, 39] {
            let row = Array::from_slice(&[token], &[1]).unwrap();
            let row = |array: &Array| array.take(&row, 0).unwrap();
            let alone: Vec<f32> = moe.forward(&row(&x), &row(&logits)).unwrap().to_vec().unwrap();
            assert_eq!(alone, all[token as usize * 64..][..64]);
        }
    }
}

#[test]
fn a_token_has_no_more_experts_than_there_are() {
    let weights = checkpoint(true, None);
    let places = (&weights.at("switch_mlp"), &weights.at("experts"));
    let top_k = TopK { top_k: 7, renormalize: true };
    let error = FusedMoe::load(places, NAMES, DIMS, top_k, Activation::Silu).err().unwrap();
    assert_eq!(error.to_string(), "experts of a token \"7 of 6\" is not supported");
}

/// Groups of two experts: with all of them open it is the plain rule times the factor,
/// with one open the experts of a token are neighbours.
#[test]
fn groups_and_a_factor_reach_both_forwards() {
    let top_k = TopK { top_k: 2, renormalize: true };
    let routed = |top_groups, scale| {
        let groups = ExpertGroups { num_groups: 3, top_groups, score: GroupScore::Best };
        let groups = Some(groups);
        let routing =
            Routing { scoring: Scoring::Softmax, groups, bias: None, scale, expert_scale: None };
        load(true, None, top_k).with_routing(routing).unwrap()
    };
    for rows in [3, 60] {
        let (x, logits) = (numbers(56, &[rows, 64]), numbers(57, &[rows, 6]));
        let open = reference(&x, &logits, top_k);
        let open: Vec<f32> = open.iter().map(|value| value * 2.5).collect();
        let best: Vec<f32> = logits.to_vec().unwrap();
        let closed: Vec<f32> = (best.chunks(6))
            .flat_map(|row| {
                let best = (0..6).fold(0, |best, at| if row[at] > row[best] { at } else { best });
                (0..6).map(move |at| if at / 2 == best / 2 { row[at] } else { -100.0 })
            })
            .collect();
        let closed = Array::from_slice(&closed, &[rows, 6]).unwrap();
        let closed = reference(&x, &closed, top_k);
        for (moe, expected) in [(routed(3, 2.5), open), (routed(1, 1.0), closed)] {
            let ours = moe.forward(&x, &logits).unwrap();
            for out in [ours, moe.forward_by_mlx(&x, &logits).unwrap()] {
                let off = distance(&out.to_vec().unwrap(), &expected);
                assert!(off < 1e-4, "{rows} rows: off by {off}");
            }
        }
    }
}

#[test]
fn pieces_are_the_rows_in_order() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let (x, logits) = (numbers(1, &[11, 4]), numbers(2, &[11, 4]));
    let whole: Vec<f32> = x.add(&logits).unwrap().to_vec().unwrap();
    for (most, expected) in [(11, vec![11]), (4, vec![4, 4, 3]), (1, vec![1; 11])] {
        let sizes = std::cell::RefCell::new(Vec::new());
        let out = in_pieces(most, &x, &logits, |x, logits| {
            sizes.borrow_mut().push(x.dim(0));
            x.add(logits)
        });
        let out = out.unwrap();
        assert_eq!(out.shape(), [11, 4]);
        assert_eq!(out.to_vec::<f32>().unwrap(), whole, "{most}");
        assert_eq!(sizes.into_inner(), expected);
    }
}
