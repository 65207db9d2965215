//! Kernels that work on rows.

use kernels::{add_rms_norm, silu_and_mul};
use rand::Rng;

use super::{Device, any_dtype, compare, epsilon, floats, random, rng, rounded};

/// The sum and its norm.
pub(crate) fn norm(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let width = 8 * shapes.random_range(1..700);
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..4);
    let (hidden, delta) = (random(rng, dtype, rows * width), random(rng, dtype, rows * width));
    let weight = random(rng, dtype, width);
    let eps = 1e-5;
    let call = add_rms_norm::call(rows, width, dtype, eps).map_err(|error| error.to_string())?;
    let inputs = [
        &floats(dtype, &[rows, width], &hidden),
        &floats(dtype, &[rows, width], &delta),
        &floats(dtype, &[width], &weight),
    ];
    let results = device.run(&call, &inputs)?;
    let sums: Vec<f32> =
        hidden.iter().zip(&delta).map(|(hidden, delta)| rounded(dtype, hidden + delta)).collect();
    if results.outputs[0] != sums {
        return Err(format!("the sum differs, {dtype:?} rows of {width}"));
    }
    let mut normed = Vec::new();
    for row in sums.chunks(width) {
        let mean = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / width as f64;
        let factor = 1.0 / (mean + f64::from(eps)).sqrt();
        normed.extend(row.iter().zip(&weight).map(|(x, w)| f64::from(*x) * factor * f64::from(*w)));
    }
    compare(&results.outputs[1], &normed, epsilon(dtype))
        .map_err(|error| format!("{error}, {dtype:?} rows of {width}"))
}

/// `silu(gate) * up`.
pub(crate) fn silu(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let width = 8 * shapes.random_range(1..300);
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..5);
    let gate_up: Vec<f32> = random(rng, dtype, rows * 2 * width)
        .iter()
        .map(|value| rounded(dtype, value * 8.0))
        .collect();
    let call = silu_and_mul::call(rows, width, dtype).map_err(|error| error.to_string())?;
    let results = device.run(&call, &[&floats(dtype, &[rows, 2 * width], &gate_up)])?;
    let mut expected = Vec::new();
    for row in gate_up.chunks(2 * width) {
        let (gate, up) = row.split_at(width);
        expected.extend(gate.iter().zip(up).map(|(gate, up)| {
            let gate = f64::from(*gate);
            gate / (1.0 + (-gate).exp()) * f64::from(*up)
        }));
    }
    compare(&results.outputs[0], &expected, epsilon(dtype))
        .map_err(|error| format!("{error}, {dtype:?} rows of {width}"))
}
