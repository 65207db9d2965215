//! Every kernel against plain sums, and rows that do not depend on their batch.

use super::{super::Operand, *};

type Kernel = unsafe fn(&Product, (usize, usize));

/// Numbers in -1..1.
fn noise(len: usize, seed: usize) -> Vec<f32> {
    let hash = |i: usize| (i + 1 + seed * 7919).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..len).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// `a` (`[m, k]`) times the transposed `b` (`[n, k]`), columns `0..n`.
fn run(kernel: Kernel, size: [usize; 3]) -> Vec<f32> {
    let [m, n, k] = size;
    let (a, b, mut c) = (noise(m * k, 1), noise(n * k, 2), vec![f32::NAN; m * n]);
    let product = Product {
        size,
        alpha: 1.0,
        a: Operand { data: a.as_ptr(), row_stride: k, column_stride: 1 },
        b: Operand { data: b.as_ptr(), row_stride: 1, column_stride: k },
        beta: 0.0,
        c: c.as_mut_ptr(),
        c_row_stride: n,
    };
    // SAFETY: the pointers span the matrices; tests ask for what the CPU has.
    unsafe { kernel(&product, (0, n)) };
    c
}

fn plain([m, n, k]: [usize; 3]) -> Vec<f64> {
    let (a, b) = (noise(m * k, 1), noise(n * k, 2));
    let dot = |i: usize, j: usize| {
        (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[j * k + x])).sum()
    };
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

#[test]
fn every_kernel_agrees_with_plain_sums() {
    let mut kernels: Vec<Kernel> = vec![panel::<[f32; 8]>, dispatch];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        kernels.push(panel::<core::arch::x86_64::__m256>);
    }
    for kernel in kernels {
        for size in [[1, 1, 0], [1, 1, 1], [4, 4, 16], [3, 7, 19], [9, 13, 40], [2, 66, 257]] {
            for (found, expected) in run(kernel, size).into_iter().zip(plain(size)) {
                assert!((f64::from(found) - expected).abs() < 1e-4, "{found} {expected} {size:?}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let [n, k] = [37, 100];
    let all = run(dispatch, [23, n, k]);
    for m in 1..23 {
        assert_eq!(run(dispatch, [m, n, k]), all[..m * n], "{m} rows");
    }
}
