//! Kernels that work on rows.

use kernels::{EmbedSpec, add_bias, add_gated, add_rms_norm, embed_packed, rms_norm, silu_and_mul};
use mlx::Dtype;
use rand::Rng;

use super::{Data, Device, Value, any_dtype, compare, epsilon, floats, random, rng, rounded};

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

/// Rows with a bias.
pub(crate) fn bias(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let width = 8 * shapes.random_range(1..300);
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..5);
    let (x, bias) = (random(rng, dtype, rows * width), random(rng, dtype, width));
    let call = add_bias::call(rows, width, dtype).map_err(|error| error.to_string())?;
    let inputs = [&floats(dtype, &[rows, width], &x), &floats(dtype, &[width], &bias)];
    let results = device.run(&call, &inputs)?;
    let sum = |(at, x): (usize, &f32)| f64::from(*x) + f64::from(bias[at % width]);
    let expected: Vec<f64> = x.iter().enumerate().map(sum).collect();
    compare(&results.outputs[0], &expected, epsilon(dtype))
        .map_err(|error| format!("{error}, {dtype:?} rows of {width}"))
}

/// Rows with gated others.
pub(crate) fn gated_sum(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let width = 8 * shapes.random_range(1..300);
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..5);
    let [x, values] = [0, 1].map(|_| random(rng, dtype, rows * width));
    let gates: Vec<f32> =
        random(rng, dtype, rows).iter().map(|gate| rounded(dtype, gate * 8.0)).collect();
    let call = add_gated::call(rows, width, dtype).map_err(|error| error.to_string())?;
    let inputs = [
        &floats(dtype, &[rows, width], &x),
        &floats(dtype, &[rows, width], &values),
        &floats(dtype, &[rows, 1], &gates),
    ];
    let results = device.run(&call, &inputs)?;
    let mut expected = Vec::new();
    for (at, (x, value)) in x.iter().zip(&values).enumerate() {
        let share = 1.0 / (1.0 + (-f64::from(gates[at / width])).exp());
        expected.push(f64::from(*x) + f64::from(*value) * share);
    }
    compare(&results.outputs[0], &expected, epsilon(dtype))
        .map_err(|error| format!("{error}, {dtype:?} rows of {width}"))
}

/// A norm with nothing to add.
pub(crate) fn plain_norm(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let width = 8 * shapes.random_range(1..700);
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..4);
    let (hidden, weight) = (random(rng, dtype, rows * width), random(rng, dtype, width));
    let call = rms_norm::call(rows, width, dtype, 1e-5).map_err(|error| error.to_string())?;
    let inputs = [&floats(dtype, &[rows, width], &hidden), &floats(dtype, &[width], &weight)];
    let results = device.run(&call, &inputs)?;
    let mut normed = Vec::new();
    for row in hidden.chunks(width) {
        let mean = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / width as f64;
        let factor = 1.0 / (mean + 1e-5).sqrt();
        normed.extend(row.iter().zip(&weight).map(|(x, w)| f64::from(*x) * factor * f64::from(*w)));
    }
    compare(&results.outputs[0], &normed, epsilon(dtype))
        .map_err(|error| format!("{error}, {dtype:?} rows of {width}"))
}

/// Rows of a packed embedding.
pub(crate) fn embed(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let group_size = [32, 64, 128][shapes.random_range(0..3)];
    let bits = [2, 4, 8][shapes.random_range(0..3)];
    let (groups, vocab) = (shapes.random_range(1..30), 40);
    let width = group_size * groups;
    let spec = EmbedSpec { width, bits, group_size, dtype, scale_dtype: dtype };
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..6);
    let ids: Vec<i32> = (0..rows).map(|_| rng.random_range(0..vocab as i32)).collect();
    let words: Vec<u32> = (0..vocab * width * bits / 32).map(|_| rng.random()).collect();
    let [scales, biases] = [(); 2].map(|()| random(rng, dtype, vocab * groups));
    let expected: Vec<f64> = ids
        .iter()
        .flat_map(|&id| (0..width).map(move |column| id as usize * width + column))
        .map(|at| {
            let quantized = words[at * bits / 32] >> (at * bits % 32) & ((1 << bits) - 1);
            let (scale, bias) = (scales[at / group_size], biases[at / group_size]);
            f64::from(quantized) * f64::from(scale) + f64::from(bias)
        })
        .collect();
    let call = embed_packed::call(&spec, rows).map_err(|error| error.to_string())?;
    let ids = Value { dtype: Dtype::Int32, shape: vec![rows], data: Data::Ints(ids) };
    let shape = vec![vocab, width * bits / 32];
    let packed = Value { dtype: Dtype::Uint32, shape, data: Data::Uints(words) };
    let [scales, biases] = [scales, biases].map(|values| floats(dtype, &[vocab, groups], &values));
    let results = device.run(&call, &[&ids, &packed, &scales, &biases])?;
    compare(&results.outputs[0], &expected, epsilon(dtype))
        .map_err(|error| format!("{error}, {spec:?}"))
}
