//! Kernels of mixtures of experts.

use kernels::{TopKSpec, moe_sum, moe_topk};
use mlx::Dtype;
use rand::Rng;

use super::{Data, Device, Value, any_dtype, compare, epsilon, floats, random, rng};

/// Softmax and the top k of it.
pub(crate) fn topk(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let num_experts = shapes.random_range(1..200_usize);
    let top_k = shapes.random_range(1..=num_experts.min(32));
    let spec = TopKSpec { num_experts, top_k, renormalize: shapes.random() };
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..5);
    let logits = random(rng, dtype, rows * num_experts);
    let call = moe_topk::call(&spec, rows, dtype).map_err(|error| error.to_string())?;
    let results = device.run(&call, &[&floats(dtype, &[rows, num_experts], &logits)])?;
    let (experts, weights) = (&results.outputs[0], &results.outputs[1]);
    let mut worst = 0.0_f64;
    for (row, logits) in logits.chunks(num_experts).enumerate() {
        let exps: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
        let mut order: Vec<usize> = (0..num_experts).collect();
        order.sort_by(|&a, &b| exps[b].total_cmp(&exps[a]).then(a.cmp(&b)));
        order.truncate(top_k);
        let found = &experts[row * top_k..][..top_k];
        if found.iter().map(|expert| *expert as usize).ne(order.iter().copied()) {
            return Err(format!("experts {found:?}, expected {order:?}, {spec:?}"));
        }
        let all: f64 = match spec.renormalize {
            true => order.iter().map(|&expert| exps[expert]).sum(),
            false => exps.iter().sum(),
        };
        let expected: Vec<f64> = order.iter().map(|&expert| exps[expert] / all).collect();
        let error = compare(&weights[row * top_k..][..top_k], &expected, 1e-5);
        worst = worst.max(error.map_err(|error| format!("{error}, {spec:?}"))?);
    }
    Ok(worst)
}

/// The weighted sum of what experts gave.
pub(crate) fn sum(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let (width, top_k) = (8 * shapes.random_range(1..200), shapes.random_range(1..10));
    let rng = &mut rng(seed);
    let rows = rng.random_range(1..5);
    let slots = random(rng, dtype, rows * top_k * width);
    let weights = random(rng, Dtype::Float32, rows * top_k);
    let call = moe_sum::call(rows, width, top_k, dtype).map_err(|error| error.to_string())?;
    let data = Data::Floats(weights.clone());
    let value = Value { dtype: Dtype::Float32, shape: vec![rows * top_k], data };
    let results = device.run(&call, &[&floats(dtype, &[rows * top_k, width], &slots), &value])?;
    let mut expected = vec![0.0; rows * width];
    for (slot, (values, weight)) in slots.chunks(width).zip(&weights).enumerate() {
        for (column, value) in values.iter().enumerate() {
            expected[slot / top_k * width + column] += f64::from(*value) * f64::from(*weight);
        }
    }
    compare(&results.outputs[0], &expected, epsilon(dtype))
        .map_err(|error| format!("{error}, {top_k} experts, {dtype:?} rows of {width}"))
}
