//! Against products with what MLX unpacks, on random shapes.

use mlx::{
    device::{self, DeviceKind},
    quantized::{QuantMode, dequantize, quantize},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

fn random(rng: &mut SmallRng, shape: &[usize]) -> Array {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Array::from_slice(&values, shape).unwrap()
}

#[test]
fn every_packing_and_type() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(7);
    for bits in qmm::BITS {
        for group_size in qmm::GROUP_SIZES {
            let rows = rng.random_range(1..70);
            let cols = group_size * rng.random_range(1..6);
            let tokens = [1, 2, 3, 4, 5, 6, 7, 13][rng.random_range(0..8)];
            let dense = random(rng, &[rows, cols]);
            let packed = quantize(&dense, group_size, bits, QuantMode::Affine).unwrap();
            let float = [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16][rng.random_range(0..3)];
            let scales = packed.scales.astype(float).unwrap();
            let biases = packed.biases.unwrap().astype(float).unwrap();
            let x = random(rng, &[tokens, cols]);
            let wide = |array: &Array| array.astype(Dtype::Float32).unwrap();
            let w = dequantize(
                &packed.weight,
                &wide(&scales),
                Some(&wide(&biases)),
                group_size,
                bits,
                QuantMode::Affine,
                None,
            );
            let (x64, w64) = (x.to_vec::<f32>().unwrap(), w.unwrap().to_vec::<f32>().unwrap());
            let out = quantized_matmul(&x, &packed.weight, &scales, &biases, group_size, bits);
            for (at, out) in out.unwrap().to_vec::<f32>().unwrap().iter().enumerate() {
                let (token, row) = (at / rows, at % rows);
                let expected: f64 = (0..cols)
                    .map(|k| f64::from(x64[token * cols + k]) * f64::from(w64[row * cols + k]))
                    .sum();
                assert!(
                    (f64::from(*out) - expected).abs() < 2e-5,
                    "{bits} bits, groups of {group_size}, [{token}, {row}]: {out}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn narrow_types_come_back_narrow() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(9);
    let packed = quantize(&random(rng, &[8, 64]), 32, 4, QuantMode::Affine).unwrap();
    let biases = packed.biases.unwrap();
    let x = random(rng, &[3, 64]);
    let wide = quantized_matmul(&x, &packed.weight, &packed.scales, &biases, 32, 4).unwrap();
    let wide = wide.to_vec::<f32>().unwrap();
    for dtype in [Dtype::Bfloat16, Dtype::Float16] {
        let x = x.astype(dtype).unwrap();
        let out = quantized_matmul(&x, &packed.weight, &packed.scales, &biases, 32, 4).unwrap();
        assert_eq!(out.dtype(), dtype);
        let out = out.astype(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();
        assert!(out.iter().zip(&wide).all(|(out, wide)| (out - wide).abs() < 0.1), "{out:?}");
    }
}

#[test]
fn words_that_do_not_fit_are_an_error() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(10);
    let packed = quantize(&random(rng, &[8, 64]), 32, 4, QuantMode::Affine).unwrap();
    let biases = packed.biases.unwrap();
    let x = random(rng, &[3, 96]);
    let out = quantized_matmul(&x, &packed.weight, &packed.scales, &biases, 32, 4).unwrap();
    assert!(out.eval().unwrap_err().to_string().contains("words of the matrix"));
}

#[test]
fn dense_matrices_of_every_type() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(11);
    for [tokens, rows, cols] in [[1, 40, 96], [3, 7, 65], [11, 33, 128]] {
        let x = random(rng, &[tokens, cols]);
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
            let w = random(rng, &[rows, cols]).astype(dtype).unwrap();
            let wide = w.astype(Dtype::Float32).unwrap();
            let expected = x.matmul(&wide.transpose(&[1, 0]).unwrap()).unwrap();
            let expected = expected.to_vec::<f32>().unwrap();
            let out = matmul(&x, &w).unwrap();
            assert_eq!(out.shape(), [tokens, rows]);
            for (out, expected) in out.to_vec::<f32>().unwrap().iter().zip(&expected) {
                assert!((out - expected).abs() < 2e-5, "{dtype}: {out}, not {expected}");
            }
        }
    }
    let (x, w) = (random(rng, &[2, 32]), random(rng, &[4, 64]));
    let error = matmul(&x, &w).unwrap().eval().unwrap_err().to_string();
    assert!(error.contains("values of x"), "{error}");
}
