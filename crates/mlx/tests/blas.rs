//! The CPU device's f32 matrix product is ours, and right.
#![cfg(target_os = "linux")]

use std::sync::atomic::Ordering;

use mlx::Array;
use mlx_sys::blas::NUM_SGEMM_CALLS;

/// `[rows, cols]` of small whole numbers, so that sums are exact in f32.
fn matrix(rows: usize, cols: usize, seed: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| ((i * 31 + seed * 17) % 13) as f32 - 6.0).collect()
}

fn reference(a: &[f32], b: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f32> {
    let cell = |i: usize, j: usize| (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum();
    (0..m * n).map(|at| cell(at / n, at % n)).collect()
}

#[test]
fn libmlx_calls_our_product() {
    if mlx::device::metal_available() || mlx::device::cuda_available() {
        return; // The product then runs on the GPU.
    }
    let before = NUM_SGEMM_CALLS.load(Ordering::Relaxed);
    for (m, n, k) in [(1, 1, 1), (1, 64, 33), (5, 1, 7), (3, 17, 64), (32, 96, 40), (65, 130, 70)] {
        let (a, b) = (matrix(m, k, 1), matrix(k, n, 2));
        let expected = reference(&a, &b, (m, n, k));
        let left = Array::from_slice(&a, &[m, k]).unwrap();
        let right = Array::from_slice(&b, &[k, n]).unwrap();
        let plain = left.matmul(&right).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(plain, expected, "{m} {n} {k}");

        // The same product with B stored transposed, as weights are.
        let stored = right.swapaxes(0, 1).unwrap().contiguous().unwrap();
        let transposed = left.matmul(&stored.swapaxes(0, 1).unwrap()).unwrap();
        assert_eq!(transposed.to_vec::<f32>().unwrap(), expected, "{m} {n} {k} transposed");
    }
    assert!(NUM_SGEMM_CALLS.load(Ordering::Relaxed) > before, "libmlx used another sgemm");
}
