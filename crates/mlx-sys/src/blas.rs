//! `cblas_sgemm` of our own, for the CPU device on Linux.
//!
//! The wheel's libmlx calls the reference BLAS beside it: no vectors, one
//! thread. An executable's symbol comes before those of its libraries, so this
//! one takes its place wherever `mlx` is linked: linkers export what a shared
//! library asks for. The one switch is the `cfg` on this module in `lib.rs`:
//! without it the wheel's own is used again. macOS has Accelerate and does not
//! need it.
//!
//! Weights are stored `[out, in]`, so nearly all work is `x @ w.T` with both
//! operands in rows: that is done by dot products (see `dot`), at any number
//! of tokens, and each element is summed in the same order whatever the batch.
//! The `gemm` crate, which does the rest, is slower on few rows of that kind and
//! sums in another order for each number of rows.
//!
//! GFLOP/s on 2 cores with AVX-512, `[M, 576] @ [1536, 576].T`:
//!
//! | M | reference BLAS | `gemm` | here |
//! |---|---|---|---|
//! | 1 | 2.6 | 35 | 57 |
//! | 32 | 2.6 | 129 | 165 |
//! | 512 | 2.6 | 192 | 147 |

use std::{
    ffi::c_int,
    sync::atomic::{AtomicU64, Ordering},
};

use gemm::Parallelism;

mod dot;

const ROW_MAJOR: c_int = 101;
const NO_TRANSPOSE: c_int = 111;

/// Products done here since start. Shows that libmlx found this symbol.
pub static NUM_SGEMM_CALLS: AtomicU64 = AtomicU64::new(0);

/// Products below this many multiply-adds run on the calling thread.
const PARALLEL_MIN_WORK: usize = 1 << 18;

/// A matrix in memory: its element (row, column) is at
/// `row * row_stride + column * column_stride`.
#[derive(Clone, Copy)]
struct Operand {
    data: *const f32,
    row_stride: usize,
    column_stride: usize,
}

/// `C = alpha * A * B + beta * C`, with A `[m, k]`, B `[k, n]` and C `[m, n]`.
#[derive(Clone, Copy)]
struct Product {
    size: [usize; 3],
    alpha: f32,
    a: Operand,
    b: Operand,
    beta: f32,
    c: *mut f32,
    c_row_stride: usize,
}

// SAFETY: the operands are plain memory; the parts that threads write are apart.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

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
    let size = |size: c_int| usize::try_from(size).unwrap_or(0);
    let operand = |data, stride, transposed| match transposed {
        false => Operand { data, row_stride: size(stride), column_stride: 1 },
        true => Operand { data, row_stride: 1, column_stride: size(stride) },
    };
    let a = operand(a, lda, trans_a != NO_TRANSPOSE);
    let b = operand(b, ldb, trans_b != NO_TRANSPOSE);
    let c_row_stride = size(ldc);
    // Columns in memory are the rows of the transposed product B.T * A.T, whose
    // operands change places; their strides are already those of its rows.
    let product = if layout == ROW_MAJOR {
        Product { size: [size(m), size(n), size(k)], alpha, a, b, beta, c, c_row_stride }
    } else {
        Product { size: [size(n), size(m), size(k)], alpha, a: b, b: a, beta, c, c_row_stride }
    };
    if product.a.column_stride == 1 && product.b.row_stride == 1 {
        // SAFETY: the caller's promise, and both operands have rows along k.
        unsafe { dot::multiply(&product) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { multiply_any(&product) }
    }
}

/// # Safety
/// The pointers span the matrices.
unsafe fn multiply_any(product: &Product) {
    let Product { size: [m, n, k], alpha, a, b, beta, c, c_row_stride } = *product;
    let parallelism =
        if m * n * k < PARALLEL_MIN_WORK { Parallelism::None } else { Parallelism::Rayon(0) };
    // SAFETY: promised by the caller. With beta 0, C may hold anything and is
    // not read.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            c_row_stride as isize,
            beta != 0.0,
            a.data,
            a.column_stride as isize,
            a.row_stride as isize,
            b.data,
            b.column_stride as isize,
            b.row_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
