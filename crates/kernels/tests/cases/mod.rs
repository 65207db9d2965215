//! Random cases for the kernels: the same for the emulator and for a GPU
//! (`examples/gpu_check.rs`).
#![allow(dead_code, reason = "each program that includes this file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]
#![allow(clippy::allow_attributes, reason = "whether code is dead depends on the includer")]

pub(crate) mod attention;

use half::{bf16, f16};
use mlx::Dtype;
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// The random numbers of case `seed`.
pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// Floats in -1..1 that `dtype` holds exactly.
pub(crate) fn floats(rng: &mut SmallRng, dtype: Dtype, len: usize) -> Vec<f32> {
    (0..len).map(|_| rounded(dtype, rng.random_range(-1.0_f32..1.0))).collect()
}

pub(crate) fn rounded(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::Float16 => f16::from_f32(value).to_f32(),
        Dtype::Bfloat16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Relative rounding error of results in `dtype`.
pub(crate) fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::Float16 => 1.0 / 1024.0,
        Dtype::Bfloat16 => 1.0 / 128.0,
        _ => 3e-6,
    }
}

/// Any float type.
pub(crate) fn any_dtype(rng: &mut SmallRng) -> Dtype {
    [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16][rng.random_range(0..3)]
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
