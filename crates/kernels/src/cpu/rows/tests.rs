//! Against plain formulas in f64.

use mlx::device::{self, DeviceKind};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

fn random(rng: &mut SmallRng, shape: &[usize]) -> (Array, Vec<f64>) {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| rng.random_range(-3.0..3.0)).collect();
    let array = Array::from_slice(&values, shape).unwrap();
    (array, values.iter().map(|value| f64::from(*value)).collect())
}

#[track_caller]
fn close(out: &Array, expected: &[f64], tolerance: f64) {
    let out = out.astype(Dtype::Float32).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(out.len(), expected.len());
    for (at, (out, expected)) in out.iter().zip(expected).enumerate() {
        let off = (f64::from(*out) - expected).abs();
        assert!(off <= tolerance * expected.abs().max(1.0), "{at}: {out}, not {expected}");
    }
}

fn norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    x.chunks(weight.len())
        .flat_map(|row| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            let factor = 1.0 / (mean + eps).sqrt();
            row.iter().zip(weight).map(move |(x, weight)| x * factor * weight).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn norms_and_sums() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(1);
    for (tokens, dims) in [(1, 16), (3, 576), (70, 576), (5, 37)] {
        let (x, x64) = random(rng, &[tokens, dims]);
        let (delta, delta64) = random(rng, &[tokens, dims]);
        let (weight, weight64) = random(rng, &[dims]);
        close(&rms_norm(&x, &weight, 1e-5).unwrap(), &norm(&x64, &weight64, 1e-5), 2e-6);
        let (sum, normed) = add_rms_norm(&x, &delta, &weight, 1e-5).unwrap();
        let sum64: Vec<f64> = x64.iter().zip(&delta64).map(|(a, b)| a + b).collect();
        close(&sum, &sum64, 1e-6);
        close(&normed, &norm(&sum64, &weight64, 1e-5), 2e-6);
        let narrow = |array: &Array| array.astype(Dtype::Bfloat16).unwrap();
        let (sum, normed) =
            add_rms_norm(&narrow(&x), &narrow(&delta), &narrow(&weight), 1e-5).unwrap();
        assert_eq!((sum.dtype(), normed.dtype()), (Dtype::Bfloat16, Dtype::Bfloat16));
        close(&sum, &sum64, 2e-2);
        close(&normed, &norm(&sum64, &weight64, 1e-5), 5e-2);
    }
}

#[test]
fn gates() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(2);
    for (tokens, dims) in [(1, 16), (3, 1536), (40, 1536), (2, 24), (2, 5)] {
        let (x, x64) = random(rng, &[tokens, 2 * dims]);
        let expected: Vec<f64> = x64
            .chunks(2 * dims)
            .flat_map(|row| {
                let gated = |i: usize| row[i] / (1.0 + (-row[i]).exp()) * row[dims + i];
                (0..dims).map(gated).collect::<Vec<_>>()
            })
            .collect();
        close(&silu_and_mul(&x).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn rotations() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(3);
    for (tokens, heads, kv_heads, dims) in [(1, 9, 3, 64), (50, 4, 1, 96)] {
        let row = (heads + 2 * kv_heads) * dims;
        let (qkv, qkv64) = random(rng, &[tokens, row]);
        let angles: Vec<f32> = (0..tokens * dims / 2).map(|_| rng.random_range(0.0..6.0)).collect();
        let table = |low: fn(f32) -> f32, high: fn(f32) -> f32| {
            let values: Vec<f32> = angles
                .chunks(dims / 2)
                .flat_map(|row| row.iter().map(|a| low(*a)).chain(row.iter().map(|a| high(*a))))
                .collect();
            Array::from_slice(&values, &[tokens, 1, dims]).unwrap()
        };
        let (cos, sin) = (table(f32::cos, f32::cos), table(|a| -a.sin(), f32::sin));
        let parts = rope_split(&qkv, [heads, kv_heads, dims], None, (&cos, &sin)).unwrap();
        let mut first = 0;
        for (part, heads) in parts.iter().zip([heads, kv_heads, kv_heads]) {
            assert_eq!(part.shape(), [tokens, heads, dims]);
            let mut expected = Vec::new();
            for token in 0..tokens {
                for head in 0..heads {
                    let x = &qkv64[token * row + first + head * dims..][..dims];
                    for i in 0..dims {
                        let angle = f64::from(angles[token * dims / 2 + i % (dims / 2)]);
                        let (other, sign) = if i < dims / 2 {
                            (x[i + dims / 2], -1.0)
                        } else {
                            (x[i - dims / 2], 1.0)
                        };
                        let rotated = x[i] * angle.cos() + sign * other * angle.sin();
                        expected.push(if first < (row - kv_heads * dims) { rotated } else { x[i] });
                    }
                }
            }
            close(part, &expected, 1e-6);
            first += heads * dims;
        }
    }
}

#[test]
fn heads_are_normed_before_they_rotate() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let rng = &mut SmallRng::seed_from_u64(4);
    let (tokens, heads, kv_heads, dims) = (40, 6, 2, 32);
    let shape = [heads, kv_heads, dims];
    let (qkv, _) = random(rng, &[tokens, (heads + 2 * kv_heads) * dims]);
    let (cos, _) = random(rng, &[tokens, 1, dims]);
    let (sin, _) = random(rng, &[tokens, 1, dims]);
    let ((q, _), (k, _)) = (random(rng, &[dims]), random(rng, &[dims]));
    let parts = qkv.split_at(&[heads * dims, (heads + kv_heads) * dims], 1);
    let [first, second, third] = &parts.unwrap()[..] else { panic!("three parts") };
    let normed = |part: &Array, weight: &Array| {
        let heads = part.reshape(&[tokens, part.dim(1) / dims, dims]).unwrap();
        rms_norm(&heads, weight, 1e-6).unwrap().reshape(&part.shape()).unwrap()
    };
    let apart = [normed(first, &q), normed(second, &k), third.clone()];
    let apart = Array::concatenate(&apart.each_ref(), 1).unwrap();
    let expected = rope_split(&apart, shape, None, (&cos, &sin)).unwrap();
    let norms = HeadNorms { q: &q, k: &k, eps: 1e-6 };
    let out = rope_split(&qkv, shape, Some(norms), (&cos, &sin)).unwrap();
    for (out, expected) in out.iter().zip(&expected) {
        assert_eq!(out.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    }
}
