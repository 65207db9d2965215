//! Against plain formulas, and slot by slot against the products of one matrix.

use mlx::{
    device::{self, DeviceKind},
    quantized::{QuantMode, quantize},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;
use crate::cpu;

fn random(rng: &mut SmallRng, shape: &[usize]) -> Array {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| rng.random_range(-2.0..2.0)).collect();
    Array::from_slice(&values, shape).unwrap()
}

fn experts(rng: &mut SmallRng, num_slots: usize, num_experts: i32) -> (Vec<i32>, Array) {
    let ids: Vec<i32> = (0..num_slots).map(|_| rng.random_range(0..num_experts)).collect();
    let array = Array::from_slice(&ids, &[num_slots]).unwrap();
    (ids, array)
}

fn floats(array: &Array) -> Vec<f32> {
    array.astype(Dtype::Float32).unwrap().to_vec().unwrap()
}

/// Matrix `index` of a stack.
fn matrix(stack: &Array, index: i32) -> Array {
    stack.take(&Array::from_slice(&[index], &[1]).unwrap(), 0).unwrap().squeeze(0).unwrap()
}

#[test]
fn the_likeliest_experts_of_each_token() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(1);
    for (num_tokens, num_experts, top_k) in [(1, 4, 1), (3, 8, 2), (40, 60, 4), (5, 6, 6)] {
        let logits = random(rng, &[num_tokens, num_experts]);
        for renormalize in [false, true] {
            let (ids, weights) = moe_topk(&logits, top_k, renormalize).unwrap();
            let (ids, weights) = (ids.to_vec::<i32>().unwrap(), floats(&weights));
            for (token, logits) in floats(&logits).chunks(num_experts).enumerate() {
                let mut order: Vec<usize> = (0..num_experts).collect();
                order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
                let exp = |expert: &usize| f64::from(logits[*expert]).exp();
                let kept = if renormalize { &order[..top_k] } else { &order[..] };
                let total: f64 = kept.iter().map(exp).sum();
                for (k, expert) in order[..top_k].iter().enumerate() {
                    let slot = token * top_k + k;
                    assert_eq!(ids[slot], *expert as i32);
                    assert!((f64::from(weights[slot]) - exp(expert) / total).abs() < 1e-6);
                }
            }
        }
    }
}

#[test]
fn of_equals_the_first_and_of_no_numbers_any() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let nan = f32::NAN;
    let logits = Array::from_slice(&[nan, 1.0, 0.0, 1.0, nan, nan, nan, nan], &[2, 4]).unwrap();
    let (ids, _) = moe_topk(&logits, 2, true).unwrap();
    let ids = ids.to_vec::<i32>().unwrap();
    assert!(ids.iter().all(|id| (0..4).contains(id)), "{ids:?}");
    let tie = Array::from_slice(&[0.5_f32, 2.0, 0.5, 2.0], &[1, 4]).unwrap();
    let (ids, _) = moe_topk(&tie, 3, true).unwrap();
    assert_eq!(ids.to_vec::<i32>().unwrap(), [1, 3, 0]);
}

#[test]
fn slots_are_products_of_one_matrix_bit_by_bit() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(2);
    let dense = random(rng, &[5, 33, 128]);
    let packed = quantize(&dense, 64, 4, QuantMode::Affine).unwrap();
    let biases = packed.biases.unwrap();
    let (weight, scales) = (&packed.weight, &packed.scales);
    let stack = QuantizedStack { weight, scales, biases: &biases, group_size: 64, bits: 4 };
    for (num_tokens, top_k) in [(1, 3), (7, 2), (50, 1)] {
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
            let x = random(rng, &[num_tokens, 128]).astype(dtype).unwrap();
            let (ids, experts) = experts(rng, num_tokens * top_k, 5);
            let outs = [
                gather_quantized_matmul(&x, &stack, &experts).unwrap(),
                gather_matmul(&x, &dense, &experts).unwrap(),
            ];
            for (slot, &id) in ids.iter().enumerate() {
                let token = Array::from_slice(&[(slot / top_k) as i32], &[1]).unwrap();
                let x = x.take(&token, 0).unwrap();
                let (weight, scales) = (matrix(weight, id), matrix(scales, id));
                let biases = matrix(&biases, id);
                let expected = [
                    cpu::quantized_matmul(&x, &weight, &scales, &biases, 64, 4).unwrap(),
                    cpu::matmul(&x, &matrix(&dense, id)).unwrap(),
                ];
                for (out, expected) in outs.iter().zip(&expected) {
                    assert_eq!((out.shape(), out.dtype()), (vec![ids.len(), 33], dtype));
                    let out = &floats(out)[slot * 33..][..33];
                    assert_eq!(out, floats(expected), "slot {slot} of {num_tokens} tokens");
                }
            }
        }
    }
}

#[test]
fn an_expert_that_is_not_there_is_an_error() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(3);
    let (x, weight) = (random(rng, &[2, 32]), random(rng, &[4, 8, 32]));
    for (ids, message) in [([0, 4], "expert 4 of 4"), ([-1, 0], "expert -1 of 4")] {
        let ids = Array::from_slice(&ids, &[2]).unwrap();
        let error = gather_matmul(&x, &weight, &ids).unwrap().eval().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn weighted_sums_of_slots() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(4);
    for (num_tokens, top_k, dims) in [(1, 8, 40), (33, 2, 600)] {
        let slots = random(rng, &[num_tokens * top_k, dims]);
        let weights = random(rng, &[num_tokens * top_k]);
        let out = floats(&moe_sum(&slots, &weights, top_k).unwrap());
        let (slots, weights) = (floats(&slots), floats(&weights));
        for (at, out) in out.iter().enumerate() {
            let (token, dim) = (at / dims, at % dims);
            let slot = |k: usize| token * top_k + k;
            let expected: f32 =
                (0..top_k).map(|k| weights[slot(k)] * slots[slot(k) * dims + dim]).sum();
            assert!((out - expected).abs() < 1e-5, "{out}, not {expected}");
        }
    }
}
