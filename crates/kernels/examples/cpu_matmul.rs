//! Speed of the CPU's products and of fork and join, for `docs/notes/cpu-matmul.md`.
//!
//! `cargo run --release -p kernels --example cpu_matmul [threads|token|rows|bits|experts]`
#![expect(clippy::print_stdout, reason = "it reports to a person")]

use std::{
    hint,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use half::f16;
use kernels::cpu::{
    matmul::matmul,
    moe::{QuantizedStack, gather_quantized_matmul, moe_sum, moe_topk},
    parallel::{num_threads, parallel_for},
    qmm::{BITS, GROUP_SIZES, QuantizedMatrix, quantized_matmul},
    silu_and_mul,
    values::{Values, ValuesMut},
};
use mlx::{
    Array, Dtype,
    device::{self, DeviceKind},
    quantized::{QuantMode, gather_qmm},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Outputs and inputs of the projections in a layer of a model of 135 M weights.
const LAYER: [[usize; 2]; 4] = [[960, 576], [576, 576], [3072, 576], [576, 1536]];
const NUM_LAYERS: usize = 30;
const HEAD: [usize; 2] = [49152, 576];

fn main() {
    println!("{} threads", num_threads());
    let all: [(&str, fn()); 5] = [
        ("threads", threads),
        ("token", token),
        ("rows", rows),
        ("bits", bits),
        ("experts", experts),
    ];
    let wanted = std::env::args().nth(1);
    for (name, run) in all {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            run();
        }
    }
}

/// Best and median seconds of some runs, after one that does not count.
fn time(num_runs: usize, mut run: impl FnMut()) -> (f64, f64) {
    run();
    let mut times: Vec<f64> = (0..num_runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[num_runs / 2])
}

struct Matrix {
    weight: Vec<u32>,
    scales: Vec<f16>,
    biases: Vec<f16>,
    shape: [usize; 2],
    group_size: usize,
    bits: usize,
}

impl Matrix {
    fn new(shape: [usize; 2], group_size: usize, bits: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(1);
        let num_weights = shape[0] * shape[1];
        let weight = (0..num_weights * bits / 32).map(|_| rng.random()).collect();
        let num_groups = num_weights / group_size;
        let halves: Vec<f16> = random(num_groups).into_iter().map(f16::from_f32).collect();
        let (scales, biases) = (halves.clone(), halves);
        Self { weight, scales, biases, shape, group_size, bits }
    }

    fn bytes(&self) -> usize {
        4 * self.weight.len() + 2 * (self.scales.len() + self.biases.len())
    }

    fn multiply(&self, num_rows: usize, x: &[f32], y: &mut [f32]) {
        let [rows, columns] = self.shape;
        let matrix = QuantizedMatrix {
            weight: &self.weight,
            scales: Values::F16(&self.scales),
            biases: Values::F16(&self.biases),
            rows,
            columns,
            group_size: self.group_size,
            bits: self.bits,
        };
        let x = Values::F32(&x[..num_rows * columns]);
        quantized_matmul(num_rows, x, &matrix, &mut ValuesMut::F32(&mut y[..num_rows * rows]));
    }
}

fn random(len: usize) -> Vec<f32> {
    let mut rng = SmallRng::seed_from_u64(2);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Time until two threads meet in a call, some time after the last one.
fn threads() {
    for pause in [0, 20, 1000].map(Duration::from_micros) {
        let mut times: Vec<f64> = (0..400)
            .map(|_| {
                let start = Instant::now();
                while start.elapsed() < pause {
                    hint::spin_loop();
                }
                meet().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "fork and join after {pause:?}: median {:.2} us, p90 {:.2}",
            times[200], times[360]
        );
    }
}

fn meet() -> Duration {
    let here = AtomicUsize::new(0);
    let start = Instant::now();
    parallel_for(2, |_| {
        here.fetch_add(1, Ordering::AcqRel);
        // One thread may have to do both tasks.
        while here.load(Ordering::Acquire) < 2 && start.elapsed().as_millis() < 3 {
            hint::spin_loop();
        }
    });
    start.elapsed()
}

/// All products of a decode step, which do not fit into a cache.
fn token() {
    let layer = |_| LAYER.map(|shape| Matrix::new(shape, 32, 4));
    let layers: Vec<_> = (0..NUM_LAYERS).map(layer).collect();
    for head_bits in [4, 8] {
        let head = Matrix::new(HEAD, 32, head_bits);
        let matrices: Vec<&Matrix> = layers.iter().flatten().chain([&head]).collect();
        let bytes: usize = matrices.iter().map(|matrix| matrix.bytes()).sum();
        for num_rows in [1, 2, 4, 8, 16] {
            let (x, mut y) = (random(num_rows * 1536), vec![0.0; num_rows * HEAD[0]]);
            let (best, median) = time(20, || {
                for matrix in &matrices {
                    matrix.multiply(num_rows, &x, &mut y);
                }
            });
            println!(
                "step of {num_rows}, {head_bits}-bit head: {:.2} ms, median {:.2}; {:.1} GB/s",
                best * 1e3,
                median * 1e3,
                bytes as f64 / best / 1e9
            );
        }
    }
}

/// Packed and dense products by number of rows.
fn rows() {
    for shape in [[576, 576], [3072, 576], [576, 1536], [4096, 2048]] {
        let [out, columns] = shape;
        let (packed, dense) = (Matrix::new(shape, 32, 4), random(out * columns));
        for num_rows in [1, 4, 8, 16, 32, 128, 512] {
            let (x, mut y) = (random(num_rows * columns), vec![0.0; num_rows * out]);
            let flops = 2e-9 * (num_rows * out * columns) as f64;
            let (q4, _) = time(10, || packed.multiply(num_rows, &x, &mut y));
            let (f32, _) = time(10, || {
                let (x, w) = (Values::F32(&x), Values::F32(&dense));
                matmul([num_rows, out, columns], x, w, &mut ValuesMut::F32(&mut y));
            });
            println!(
                "{columns} -> {out}, {num_rows} rows: 4-bit {:.0} GFLOP/s, f32 {:.0}",
                flops / q4,
                flops / f32
            );
        }
    }
}

/// One and four rows by packing.
fn bits() {
    let (x, mut y) = (random(4 * 2048), vec![0.0; 4 * 8192]);
    for group_size in GROUP_SIZES {
        for bits in BITS {
            let matrix = Matrix::new([8192, 2048], group_size, bits);
            let rate = |num_rows, y: &mut [f32]| {
                matrix.bytes() as f64 / time(10, || matrix.multiply(num_rows, &x, y)).0 / 1e9
            };
            let (one, four) = (rate(1, &mut y), rate(4, &mut y));
            println!("{bits} bits, groups of {group_size}: {one:.1} GB/s, 4 rows {four:.1} GB/s");
        }
    }
}

/// The experts of a layer of Qwen3-30B-A3B, 8 of 128 for each token, beside MLX's
/// product by experts for gate and up alone.
fn experts() {
    let (num_experts, hidden, inner, top_k) = (128, 2048, 768, 8);
    device::set_default(DeviceKind::Cpu).expect("there is a CPU");
    let done = |array: mlx::Result<Array>| {
        let array = array.expect("shapes fit");
        array.eval().expect("there is memory");
        array
    };
    let scales = |rows, columns| {
        let shape = [num_experts, rows, columns / 64];
        done(mlx::random::uniform(&shape, -0.01, 0.01, Dtype::Bfloat16, None))
    };
    let words = |rows, columns| done(mlx::random::bits(&[num_experts, rows, columns / 8], None));
    let gate_up = (words(2 * inner, hidden), scales(2 * inner, hidden));
    let down = (words(hidden, inner), scales(hidden, inner));
    let product = |x: &Array, (weight, scales): &(Array, Array), ids: &Array| {
        let stack = QuantizedStack { weight, scales, biases: scales, group_size: 64, bits: 4 };
        gather_quantized_matmul(x, &stack, ids)
    };
    for tokens in [1, 4, 32, 512] {
        let floats =
            |width| done(mlx::random::uniform(&[tokens, width], -3.0, 3.0, Dtype::Bfloat16, None));
        let (x, logits) = (floats(hidden), floats(num_experts));
        let (ours, _) = time(5, || {
            let sum = moe_topk(&logits, top_k, true).and_then(|(ids, weights)| {
                let y = silu_and_mul(&product(&x, &gate_up, &ids)?)?;
                moe_sum(&product(&y, &down, &ids)?, &weights, top_k)
            });
            done(sum);
        });
        let ids = done(moe_topk(&logits, top_k, true).map(|(ids, _)| ids));
        let theirs = || {
            let (x, ids) = (x.reshape(&[tokens, 1, 1, hidden])?, ids.reshape(&[tokens, top_k])?);
            let ((w, s), mode) = (&gate_up, QuantMode::Affine);
            gather_qmm(&x, w, s, Some(s), None, Some(&ids), true, 64, 4, mode, false)
        };
        let mlx = match tokens < 5 {
            true => format!("{:.0} ms", time(2, || drop(done(theirs()))).0 * 1e3),
            false => "not tried".to_owned(),
        };
        println!("{tokens} tokens: {:.2} ms; gate and up by MLX: {mlx}", ours * 1e3);
    }
}
