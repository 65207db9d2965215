//! Random cases for the kernels, run by the emulator in the tests and by a GPU in
//! `examples/gpu_check.rs`.
//!
//! A case has two seeds: `shape` fixes what a driver compiles (a GPU takes about
//! a second for that, so it gets few), `seed` everything else.
#![allow(dead_code, reason = "each program that includes this file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]
#![allow(clippy::allow_attributes, reason = "whether code is dead depends on the includer")]

pub(crate) mod attention;
pub(crate) mod moe;
pub(crate) mod products;
pub(crate) mod recurrent;
pub(crate) mod rows;
pub(crate) mod write;

use half::{bf16, f16};
use kernels::{Call, KvDtype};
use mlx::Dtype;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

/// An array on the host.
#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

#[derive(Clone)]
pub(crate) enum Data {
    Floats(Vec<f32>),
    Ints(Vec<i32>),
    Uints(Vec<u32>),
    /// Packed rows of K or V.
    Rows(KvDtype, Vec<u8>),
}

/// What a launch left behind.
pub(crate) struct Results {
    pub(crate) outputs: Vec<Vec<f32>>,
    /// Inputs declared `inout`, in order.
    pub(crate) written: Vec<Vec<f32>>,
}

/// Runs kernels: the emulator, or a GPU.
pub(crate) trait Device {
    /// `inputs` in the order of the declarations.
    fn run(&self, call: &Call, inputs: &[&Value]) -> Result<Results, String>;
}

/// One random case. The largest error, or what is wrong.
pub(crate) type Case = fn(&dyn Device, shape: u64, seed: u64) -> Result<f64, String>;

pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

pub(crate) fn floats(dtype: Dtype, shape: &[usize], values: &[f32]) -> Value {
    Value { dtype, shape: shape.to_vec(), data: Data::Floats(values.to_vec()) }
}

/// `[num_slots, num_kv_heads, head_dim]` floats as a pool of `dtype`.
pub(crate) fn pool(dtype: KvDtype, [slots, heads, head_dim]: [usize; 3], values: &[f32]) -> Value {
    let shape = vec![slots, heads, dtype.row_len(head_dim)];
    let KvDtype::Plain(plain) = dtype else {
        let mut rows = vec![0; shape.iter().product()];
        let each = rows.chunks_mut(shape[2]).zip(values.chunks(head_dim));
        each.for_each(|(row, values)| dtype.pack(values, row));
        return Value { dtype: Dtype::Uint8, shape, data: Data::Rows(dtype, rows) };
    };
    floats(plain, &shape, values)
}

/// The same as a kernel left it, as floats again.
pub(crate) fn unpacked(dtype: KvDtype, head_dim: usize, pool: &[f32]) -> Vec<f32> {
    if !dtype.is_packed() {
        return pool.to_vec();
    }
    let mut values = Vec::new();
    for row in pool.chunks(dtype.row_len(head_dim)) {
        let bytes: Vec<u8> = row.iter().map(|byte| *byte as u8).collect();
        let mut row = vec![0.0; head_dim];
        dtype.unpack(&bytes, &mut row);
        values.extend(row);
    }
    values
}

pub(crate) fn ints(shape: &[usize], values: &[i32]) -> Value {
    Value { dtype: Dtype::Int32, shape: shape.to_vec(), data: Data::Ints(values.to_vec()) }
}

pub(crate) fn sizes(values: &[usize]) -> Value {
    let values: Vec<i32> = values.iter().map(|value| i32::try_from(*value).unwrap()).collect();
    ints(&[values.len()], &values)
}

/// What stands for `chain` and `after`.
pub(crate) fn chain() -> Value {
    ints(&[8], &[0; 8])
}

/// Floats in -1..1 that `dtype` holds exactly.
pub(crate) fn random(rng: &mut SmallRng, dtype: Dtype, len: usize) -> Vec<f32> {
    (0..len).map(|_| rounded(dtype, rng.random_range(-1.0_f32..1.0))).collect()
}

pub(crate) fn rounded(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::Float16 => f16::from_f32(value).to_f32(),
        Dtype::Bfloat16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Slots for `num_tokens` rows, all different, some negative.
pub(crate) fn random_slots(rng: &mut SmallRng, num_tokens: usize, num_slots: usize) -> Vec<i32> {
    let mut all: Vec<i32> = (0..i32::try_from(num_slots).unwrap()).collect();
    all.shuffle(rng);
    all.truncate(num_tokens);
    all.iter_mut().filter(|_| rng.random_bool(0.1)).for_each(|slot| *slot = -1);
    all
}

/// Relative rounding error of results in `dtype`.
pub(crate) fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Float16 => 1.0 / 1024.0,
        Dtype::Bfloat16 => 1.0 / 128.0,
        _ => 4e-6,
    }
}

pub(crate) fn any_dtype(rng: &mut SmallRng) -> Dtype {
    [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16][rng.random_range(0..3)]
}

/// The pool's type: that of the rows, or f16 below f32.
pub(crate) fn any_kv_dtype(rng: &mut SmallRng, dtype: Dtype) -> KvDtype {
    if dtype == Dtype::Float32 && rng.random_bool(0.25) {
        Dtype::Float16.into()
    } else {
        dtype.into()
    }
}

/// A type of rows with a packed type of the pool, of those that the emulator has of every
/// kernel.
pub(crate) fn any_packed(rng: &mut SmallRng) -> (Dtype, KvDtype) {
    match rng.random_range(0..4) {
        3 => (Dtype::Bfloat16, KvDtype::Int8),
        index => (Dtype::Float32, KvDtype::PACKED[index]),
    }
}

/// A pool, `[num_slots, num_kv_heads, head_dim]`, and the numbers in -1..1 that it holds.
pub(crate) fn random_pool(
    rng: &mut SmallRng,
    dtype: KvDtype,
    shape: [usize; 3],
) -> (Value, Vec<f32>) {
    let plain = if dtype.is_packed() { Dtype::Float32 } else { dtype.array_dtype() };
    let values = random(rng, plain, shape.iter().product());
    let pool = pool(dtype, shape, &values);
    let values = match &pool.data {
        Data::Rows(_, bytes) => {
            let bytes: Vec<f32> = bytes.iter().map(|byte| f32::from(*byte)).collect();
            unpacked(dtype, shape[2], &bytes)
        }
        _ => values,
    };
    (pool, values)
}

/// The largest difference, `Err` if it is more than `tolerance` anywhere.
pub(crate) fn compare(actual: &[f32], expected: &[f64], tolerance: f64) -> Result<f64, String> {
    assert_eq!(actual.len(), expected.len());
    let mut worst = 0.0_f64;
    for (at, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - e).abs();
        if error.is_nan() || error > tolerance * (1.0 + e.abs()) {
            return Err(format!("element {at} is {a}, expected {e} within {tolerance:e}"));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}
