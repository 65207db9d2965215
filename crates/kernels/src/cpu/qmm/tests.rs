//! Against MLX's own product, on random shapes.

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

fn isas() -> Vec<Isa> {
    let mut isas = vec![Isa::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            isas.push(Isa::Avx2);
        }
        if Isa::best() == Isa::Avx512 {
            isas.push(Isa::Avx512);
        }
    }
    isas
}

fn run(isa: Isa, x: &Array, packed: [&Array; 3], group_size: usize, bits: usize) -> Array {
    let kernel = Arc::new(QuantizedMatmul { group_size, bits, isa });
    let outputs: &[(&[usize], Dtype)] = &[(&[x.dim(0), packed[0].dim(0)], x.dtype())];
    let [w, scales, biases] = packed;
    cpu_kernel(kernel, &[x, w, scales, biases], outputs).unwrap().remove(0)
}

#[test]
fn every_packing_on_every_processor_path() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(7);
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            let rows = rng.random_range(1..70);
            let cols = group_size * rng.random_range(1..6);
            let tokens = [1, 2, 3, 4, 5, 6, 7, 13][rng.random_range(0..8)];
            let dense = random(rng, &[rows, cols]);
            let packed = quantize(&dense, group_size, bits, QuantMode::Affine).unwrap();
            let biases = packed.biases.unwrap();
            let float = [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16][rng.random_range(0..3)];
            let (scales, biases) =
                (packed.scales.astype(float).unwrap(), biases.astype(float).unwrap());
            let x = random(rng, &[tokens, cols]);
            let w = dequantize(
                &packed.weight,
                &scales.astype(Dtype::Float32).unwrap(),
                Some(&biases.astype(Dtype::Float32).unwrap()),
                group_size,
                bits,
                QuantMode::Affine,
                None,
            )
            .unwrap();
            let (x64, w64) = (x.to_vec::<f32>().unwrap(), w.to_vec::<f32>().unwrap());
            for isa in isas() {
                let parts = [&packed.weight, &scales, &biases];
                let out = run(isa, &x, parts, group_size, bits).to_vec::<f32>().unwrap();
                for (at, out) in out.iter().enumerate() {
                    let (token, row) = (at / rows, at % rows);
                    let expected: f64 = (0..cols)
                        .map(|k| f64::from(x64[token * cols + k]) * f64::from(w64[row * cols + k]))
                        .sum();
                    assert!(
                        (f64::from(*out) - expected).abs() < 2e-5,
                        "{isa:?} {bits} bits, groups of {group_size}, [{token}, {row}]: \
                         {out}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_in_any_batch() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(8);
    for bits in [3, 4, 8] {
        let dense = random(rng, &[203, 576]);
        let packed = quantize(&dense, 32, bits, QuantMode::Affine).unwrap();
        let biases = packed.biases.unwrap();
        let parts = [&packed.weight, &packed.scales, &biases];
        let x = random(rng, &[40, 576]);
        for isa in isas() {
            let all = run(isa, &x, parts, 32, bits).to_vec::<f32>().unwrap();
            for tokens in [1, 2, 3, 4, 5, 8, 17] {
                let some = x.slice(&[0, 0], &[tokens as i32, 576], &[1, 1]).unwrap();
                let some = run(isa, &some, parts, 32, bits).to_vec::<f32>().unwrap();
                assert_eq!(some, all[..tokens * 203], "{isa:?} {bits} bits, {tokens} tokens");
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
    assert!(out.eval().unwrap_err().to_string().contains("words of a packed matrix"));
}
