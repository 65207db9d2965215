//! What the tests of this crate share.

// Each test binary uses a part of it.
#![allow(dead_code, clippy::allow_attributes, reason = "shared by several test binaries")]

use mlx::{Array, Element};

pub(crate) fn array<T: Element>(data: &[T], shape: &[usize]) -> Array {
    Array::from_slice(data, shape).unwrap()
}

pub(crate) fn vector<T: Element>(data: &[T]) -> Array {
    array(data, &[data.len()])
}

pub(crate) fn floats(array: &Array) -> Vec<f32> {
    array.astype(mlx::Dtype::Float32).unwrap().to_vec().unwrap()
}

/// Numbers in -1..1 that are the same in every run.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
        let same = found == expected || (found.is_nan() && expected.is_nan());
        assert!(close || same, "{what}: {found} instead of {expected} at {place}");
    }
}
