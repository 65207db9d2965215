//! Writes of K and V, plain and with rotary embedding.

use kernels::{RopeSpec, kv_write, rope_kv_write};
use mlx::Dtype;
use rand::Rng;

use super::{
    Device, any_dtype, any_kv_dtype, chain, compare, epsilon, floats, ints, random, random_slots,
    rng, rounded,
};

/// Rows land in their slots and nothing else changes.
pub(crate) fn plain(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let dtype = any_dtype(&mut shapes);
    let kv_dtype = any_kv_dtype(&mut shapes, dtype);
    let heads = shapes.random_range(1..5);
    let dim = [64, 80, 96, 128, 256][shapes.random_range(0..5)];
    let rng = &mut rng(seed);
    let (num_tokens, row) = (rng.random_range(1..20), heads * dim);
    let num_slots = num_tokens + rng.random_range(0..30);
    let slots = random_slots(rng, num_tokens, num_slots);
    let mut rows = |dtype, rows: usize| random(rng, dtype, rows * row);
    let (k, v) = (rows(dtype, num_tokens), rows(dtype, num_tokens));
    let (k_pool, v_pool) = (rows(kv_dtype, num_slots), rows(kv_dtype, num_slots));
    let call =
        kv_write::call(num_tokens, row, dtype, kv_dtype).map_err(|error| error.to_string())?;
    let inputs = [
        &floats(dtype, &[num_tokens, heads, dim], &k),
        &floats(dtype, &[num_tokens, heads, dim], &v),
        &floats(kv_dtype, &[num_slots, heads, dim], &k_pool),
        &floats(kv_dtype, &[num_slots, heads, dim], &v_pool),
        &ints(&[num_tokens], &slots),
        &chain(),
    ];
    let results = device.run(&call, &inputs)?;
    assert_eq!(results.outputs[0], [0.0; 8]);
    for ((mut pool, rows), written) in [(k_pool, k), (v_pool, v)].into_iter().zip(results.written) {
        for (slot, values) in slots.iter().zip(rows.chunks(row)) {
            let Ok(slot) = usize::try_from(*slot) else { continue };
            let values: Vec<f32> = values.iter().map(|x| rounded(kv_dtype, *x)).collect();
            pool[slot * row..][..row].copy_from_slice(&values);
        }
        if written != pool {
            return Err(format!("the pool differs, {dtype:?} rows of {row} in {kv_dtype:?}"));
        }
    }
    Ok(0.0)
}

fn rope_spec(shape: u64) -> RopeSpec {
    let mut rng = rng(shape);
    let dtype = any_dtype(&mut rng);
    let head_dim = [64, 80, 96, 128, 192, 256][rng.random_range(0..6)];
    let num_kv_heads = rng.random_range(1..4);
    RopeSpec {
        num_heads: num_kv_heads * rng.random_range(1..5),
        num_kv_heads,
        head_dim,
        rotary_dim: if rng.random_bool(0.3) { 32 } else { head_dim },
        traditional: rng.random_bool(0.3),
        mscale: if rng.random_bool(0.3) { 1.25 } else { 1.0 },
        norm_eps: rng.random_bool(0.4).then_some(1e-6),
        dtype,
        kv_dtype: any_kv_dtype(&mut rng, dtype),
    }
}

/// One head's row after norm and rotation, in double precision.
fn rotated(
    spec: &RopeSpec,
    row: &[f32],
    norm: &[f32],
    inv_freq: &[f32],
    position: i32,
) -> Vec<f64> {
    let mut x: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
    if let Some(eps) = spec.norm_eps {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let factor = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter_mut().zip(norm).for_each(|(x, weight)| *x *= factor * f64::from(*weight));
    }
    let half = spec.rotary_dim / 2;
    for (pair, frequency) in inv_freq.iter().enumerate() {
        let (a, b) = if spec.traditional { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
        // The angle is rounded to f32 as on the device.
        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
        let (sin, cos) = (sin * f64::from(spec.mscale), cos * f64::from(spec.mscale));
        (x[a], x[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
    }
    x
}

/// Norm, rotation and write in one.
pub(crate) fn rope(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let spec = rope_spec(shape);
    let (heads, kv_heads, dim) = (spec.num_heads, spec.num_kv_heads, spec.head_dim);
    let rng = &mut rng(seed);
    let num_tokens = rng.random_range(1..10);
    let num_slots = num_tokens + rng.random_range(0..10);
    let width = (heads + 2 * kv_heads) * dim;
    let qkv = random(rng, spec.dtype, num_tokens * width);
    let norms = [random(rng, spec.dtype, dim), random(rng, spec.dtype, dim)];
    let inv_freq: Vec<f32> = (0..spec.rotary_dim / 2)
        .map(|i| 10_000_f32.powf(-2.0 * i as f32 / spec.rotary_dim as f32))
        .collect();
    let positions: Vec<i32> = (0..num_tokens).map(|_| rng.random_range(0..9000)).collect();
    let slots = random_slots(rng, num_tokens, num_slots);
    let pools = [(); 2].map(|()| random(rng, spec.kv_dtype, num_slots * kv_heads * dim));
    let pool_shape = [num_slots, kv_heads, dim];
    let inputs = [
        &floats(spec.dtype, &[num_tokens, width], &qkv),
        &floats(spec.dtype, &[dim], &norms[0]),
        &floats(spec.dtype, &[dim], &norms[1]),
        &floats(Dtype::Float32, &[inv_freq.len()], &inv_freq),
        &ints(&[num_tokens], &positions),
        &floats(spec.kv_dtype, &pool_shape, &pools[0]),
        &floats(spec.kv_dtype, &pool_shape, &pools[1]),
        &ints(&[num_tokens], &slots),
        &chain(),
    ];
    let call = rope_kv_write::call(&spec, num_tokens).map_err(|error| error.to_string())?;
    let results = device.run(&call, &inputs)?;
    let mut q = Vec::new();
    let mut pools = pools.map(|pool| pool.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
    for (token, rows) in qkv.chunks(width).enumerate() {
        for (head, row) in rows.chunks(dim).enumerate() {
            let is_q = head < heads;
            let norm = if is_q { &norms[0] } else { &norms[1] };
            let rotated = || rotated(&spec, row, norm, &inv_freq, positions[token]);
            if is_q {
                q.extend(rotated());
            } else if let Ok(slot) = usize::try_from(slots[token]) {
                let (which, at) = ((head - heads) / kv_heads, (head - heads) % kv_heads);
                let values = if which == 0 {
                    rotated()
                } else {
                    row.iter().map(|x| f64::from(*x)).collect()
                };
                pools[which][(slot * kv_heads + at) * dim..][..dim].copy_from_slice(&values);
            }
        }
    }
    // f32 angles of thousands of radians, and the norm's result rounded twice.
    let tolerance = |dtype| 2.0 * epsilon(dtype) + 2e-5;
    let fail = |error: String| format!("{error}\n{spec:?}");
    let kv_tolerance = tolerance(spec.kv_dtype).max(tolerance(spec.dtype));
    let mut worst = compare(&results.outputs[0], &q, tolerance(spec.dtype)).map_err(fail)?;
    for (written, pool) in results.written.iter().zip(&pools) {
        worst = worst.max(compare(written, pool, kv_tolerance).map_err(fail)?);
    }
    Ok(worst)
}
