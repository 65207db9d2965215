//! Writes of K and V, plain and with rotary embedding.

use kernels::{KvDtype, RopeSpec, kv_write, rope_kv_write};
use mlx::Dtype;
use rand::Rng;

use super::{
    Data, Device, Value, any_dtype, any_kv_dtype, any_packed, chain, compare, epsilon, floats,
    ints, random, random_pool, random_slots, rng, rounded, unpacked,
};

/// How far a packed value may be from what was written, given its group: half a step, and
/// what the rounding of scale and bias to bf16 shifts.
fn allowed(dtype: KvDtype, group: &[f64], value: f64) -> f64 {
    let least = group.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = group.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let most = greatest.max(-least);
    match dtype {
        KvDtype::Plain(_) => 0.0,
        KvDtype::Fp8E4m3 => (value.abs() / 16.0).max(1.0 / 1024.0),
        KvDtype::Int8 => 0.5 * most / 127.0 + most / 250.0,
        KvDtype::Int4 => 0.5 * (greatest - least) / 15.0 + (greatest - least + least.abs()) / 250.0,
    }
}

/// Checks rows of a packed pool, `actual`: those of `expected` were written, the others are
/// as `before`. The largest difference.
fn compare_packed(
    (dtype, head_dim): (KvDtype, usize),
    (actual, before): (&[f32], &[f32]),
    expected: &[Option<Vec<f64>>],
    slack: f64,
) -> Result<f64, String> {
    let mut worst = 0.0_f64;
    let rows = actual.chunks(head_dim).zip(before.chunks(head_dim));
    for ((actual, before), expected) in rows.zip(expected) {
        let Some(expected) = expected else {
            if actual != before {
                return Err("a row that nobody wrote differs".to_owned());
            }
            continue;
        };
        for (at, (actual, value)) in actual.iter().zip(expected).enumerate() {
            let first = at / 32 * 32;
            let group = &expected[first..head_dim.min(first + 32)];
            let allowed = allowed(dtype, group, *value) + slack;
            let off = (f64::from(*actual) - value).abs();
            if off.is_nan() || off > allowed {
                return Err(format!("column {at} is {actual}, not {value} within {allowed:e}"));
            }
            worst = worst.max(off);
        }
    }
    Ok(worst)
}

fn bytes_of(pool: &Value) -> Vec<f32> {
    match &pool.data {
        Data::Rows(_, bytes) => bytes.iter().map(|byte| f32::from(*byte)).collect(),
        _ => panic!("the pool is packed"),
    }
}

/// Rows are packed into their slots and nothing else changes.
pub(crate) fn packed(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let mut shapes = rng(shape);
    let (dtype, kv_dtype) = any_packed(&mut shapes);
    let (heads, dim) =
        (shapes.random_range(1..5), [64, 80, 96, 128, 256][shapes.random_range(0..5)]);
    let rng = &mut rng(seed);
    let num_tokens = rng.random_range(1..20);
    let num_slots = num_tokens + rng.random_range(0..30);
    let slots = random_slots(rng, num_tokens, num_slots);
    let size = num_tokens * heads * dim;
    let (k, v) = (random(rng, dtype, size), random(rng, dtype, size));
    let pools = [(); 2].map(|()| random_pool(rng, kv_dtype, [num_slots, heads, dim]).0);
    let call = kv_write::call(num_tokens, [heads, dim], dtype, kv_dtype)
        .map_err(|error| error.to_string())?;
    let inputs = [
        &floats(dtype, &[num_tokens, heads, dim], &k),
        &floats(dtype, &[num_tokens, heads, dim], &v),
        &pools[0],
        &pools[1],
        &ints(&[num_tokens], &slots),
        &chain(),
    ];
    let written = device.run(&call, &inputs)?.written;
    let mut worst = 0.0_f64;
    for ((pool, rows), written) in pools.iter().zip([k, v]).zip(&written) {
        let mut expected = vec![None; num_slots * heads];
        for (index, row) in rows.chunks(dim).enumerate() {
            let Ok(slot) = usize::try_from(slots[index / heads]) else { continue };
            let row = row.iter().map(|x| f64::from(*x)).collect();
            expected[slot * heads + index % heads] = Some(row);
        }
        let [written, before] =
            [written, &bytes_of(pool)].map(|pool| unpacked(kv_dtype, dim, pool));
        let worst_here = compare_packed((kv_dtype, dim), (&written, &before), &expected, 1e-6)
            .map_err(|error| format!("{error}; rows of {dim} in {kv_dtype}"))?;
        worst = worst.max(worst_here);
    }
    Ok(worst)
}

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
    let mut rows = || random(rng, dtype, num_tokens * row);
    let (k, v) = (rows(), rows());
    let [(k_array, k_pool), (v_array, v_pool)] =
        [(); 2].map(|()| random_pool(rng, kv_dtype, [num_slots, heads, dim]));
    let call = kv_write::call(num_tokens, [heads, dim], dtype, kv_dtype)
        .map_err(|error| error.to_string())?;
    let inputs = [
        &floats(dtype, &[num_tokens, heads, dim], &k),
        &floats(dtype, &[num_tokens, heads, dim], &v),
        &k_array,
        &v_array,
        &ints(&[num_tokens], &slots),
        &chain(),
    ];
    let results = device.run(&call, &inputs)?;
    assert_eq!(results.outputs[0], [0.0; 8]);
    for ((mut pool, rows), written) in [(k_pool, k), (v_pool, v)].into_iter().zip(results.written) {
        for (slot, values) in slots.iter().zip(rows.chunks(row)) {
            let Ok(slot) = usize::try_from(*slot) else { continue };
            let values: Vec<f32> =
                values.iter().map(|x| rounded(kv_dtype.array_dtype(), *x)).collect();
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
    rope_case(device, rope_spec(shape), seed)
}

/// The same into packed pools.
pub(crate) fn rope_packed(device: &dyn Device, shape: u64, seed: u64) -> Result<f64, String> {
    let (dtype, kv_dtype) = any_packed(&mut rng(shape + 1000));
    rope_case(device, RopeSpec { dtype, kv_dtype, ..rope_spec(shape) }, seed)
}

fn rope_case(device: &dyn Device, spec: RopeSpec, seed: u64) -> Result<f64, String> {
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
    let pools = [(); 2].map(|()| random_pool(rng, spec.kv_dtype, [num_slots, kv_heads, dim]));
    let inputs = [
        &floats(spec.dtype, &[num_tokens, width], &qkv),
        &floats(spec.dtype, &[dim], &norms[0]),
        &floats(spec.dtype, &[dim], &norms[1]),
        &floats(Dtype::Float32, &[inv_freq.len()], &inv_freq),
        &ints(&[num_tokens], &positions),
        &pools[0].0,
        &pools[1].0,
        &ints(&[num_tokens], &slots),
        &chain(),
    ];
    let call = rope_kv_write::call(&spec, num_tokens).map_err(|error| error.to_string())?;
    let results = device.run(&call, &inputs)?;
    let mut q = Vec::new();
    let mut rows = [(); 2].map(|()| vec![None; num_slots * kv_heads]);
    for (token, heads_of) in qkv.chunks(width).enumerate() {
        for (head, row) in heads_of.chunks(dim).enumerate() {
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
                rows[which][slot * kv_heads + at] = Some(values);
            }
        }
    }
    // f32 angles of thousands of radians, and the norm's result rounded twice.
    let tolerance = |dtype| 2.0 * epsilon(dtype) + 2e-5;
    let fail = |error: String| format!("{error}\n{spec:?}");
    let mut worst = compare(&results.outputs[0], &q, tolerance(spec.dtype)).map_err(fail)?;
    for ((written, (_, before)), rows) in results.written.iter().zip(&pools).zip(&rows) {
        let written = unpacked(spec.kv_dtype, dim, written);
        let worst_here = if spec.kv_dtype.is_packed() {
            let slack = 2.0 * tolerance(spec.dtype);
            compare_packed((spec.kv_dtype, dim), (&written, before), rows, slack)
        } else {
            let tolerance = tolerance(spec.kv_dtype.array_dtype()).max(tolerance(spec.dtype));
            let rows = rows.iter().zip(before.chunks(dim));
            let before = |row: &[f32]| row.iter().map(|x| f64::from(*x)).collect();
            let pool = rows.map(|(row, old)| row.clone().unwrap_or_else(|| before(old)));
            compare(&written, &pool.collect::<Vec<_>>().concat(), tolerance)
        };
        worst = worst.max(worst_here.map_err(fail)?);
    }
    Ok(worst)
}
