//! `cblas_sgemm` of our own, for the CPU device on Linux.
//!
//! The wheel's libmlx calls the reference BLAS beside it: no vectors, one
//! thread. An executable's symbol comes before those of its libraries, so this
//! one takes its place wherever `mlx` is linked. The one switch is the `cfg` on
//! this module in `lib.rs`: without it the wheel's own is used again. macOS has
//! Accelerate and does not need it.

use std::{
    ffi::c_int,
    sync::atomic::{AtomicU64, Ordering},
};

use gemm::Parallelism;

const ROW_MAJOR: c_int = 101;
const NO_TRANSPOSE: c_int = 111;

/// Products done here since start. Shows that libmlx found this symbol.
pub static NUM_SGEMM_CALLS: AtomicU64 = AtomicU64::new(0);

/// Products below this many multiply-adds run on the calling thread.
const PARALLEL_MIN_FLOPS: usize = 1 << 18;

/// C = alpha * op(A) * op(B) + beta * C, in f32.
///
/// # Safety
/// The CBLAS contract: the pointers span the matrices that dimensions, leading
/// dimensions and layout describe, and C overlaps neither A nor B.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cblas_sgemm(
    layout: c_int,
    trans_a: c_int,
    trans_b: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: f32,
    a: *const f32,
    lda: c_int,
    b: *const f32,
    ldb: c_int,
    beta: f32,
    c: *mut f32,
    ldc: c_int,
) {
    NUM_SGEMM_CALLS.fetch_add(1, Ordering::Relaxed);
    // Strides as (row, column).
    let strides = |ld: c_int, transposed: bool| {
        let ld = ld as isize;
        if (layout == ROW_MAJOR) != transposed { (ld, 1) } else { (1, ld) }
    };
    let (a_rs, a_cs) = strides(lda, trans_a != NO_TRANSPOSE);
    let (b_rs, b_cs) = strides(ldb, trans_b != NO_TRANSPOSE);
    let (c_rs, c_cs) = strides(ldc, false);
    let (m, n, k) = (m.max(0) as usize, n.max(0) as usize, k.max(0) as usize);
    let parallelism =
        if m * n * k < PARALLEL_MIN_FLOPS { Parallelism::None } else { Parallelism::Rayon(0) };
    // SAFETY: the caller's pointers span the matrices, and the strides follow
    // from layout, transposition and leading dimensions. With beta 0, C may hold
    // anything and is not read.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            c_cs,
            c_rs,
            beta != 0.0,
            a,
            a_cs,
            a_rs,
            b,
            b_cs,
            b_rs,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
