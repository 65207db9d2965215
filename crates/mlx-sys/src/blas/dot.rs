//! Products of two matrices whose rows both run along k: `A * B.T` as stored.
//!
//! Every element of C is one dot product, summed in one vector register and
//! then across its lanes, in the same order whatever tile it falls into: a
//! token's result does not depend on what else is in the batch. Nothing is
//! packed, since each row is read from its beginning to its end.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{PARALLEL_MIN_WORK, Product};

/// Columns of C in a tile.
const TILE_COLUMNS: usize = 4;
/// The same for a single row, where more sums at once hide their latency.
const ROW_COLUMNS: usize = 8;
/// Panels per thread, so that a late thread holds the others up little.
const PANELS_PER_THREAD: usize = 4;
/// Rows of A that stay in a core's nearest cache while rows of B pass.
const BLOCK_ROWS: usize = 12;
/// Rows of B that stay in a core's cache while rows of A pass, in bytes.
const PANEL_BYTES: usize = 256 << 10;

/// A vector register of f32.
trait Vector: Copy {
    const LANES: usize;
    /// Rows of C in a tile, so that all sums stay in registers.
    const TILE_ROWS: usize;

    /// # Safety
    /// The CPU has the instructions, as for all that follow.
    unsafe fn zero() -> Self;
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load(data: *const f32) -> Self;
    /// `self + a * b`.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// The sum of all lanes.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn sum(self) -> f32;
}

/// Computes C.
///
/// # Safety
/// The pointers span the matrices; A's columns and B's rows have stride 1.
pub(super) unsafe fn multiply(product: &Product) {
    let [m, n, k] = product.size;
    let in_cache = PANEL_BYTES / (4 * k.max(1));
    let share = n.div_ceil(PANELS_PER_THREAD * rayon::current_num_threads());
    let panel = in_cache.min(share).max(1).next_multiple_of(ROW_COLUMNS);
    let columns = |index: usize| (index * panel, ((index + 1) * panel).min(n));
    let run = |index: usize| {
        // SAFETY: the panels of columns are apart; else the caller's promise.
        unsafe { dispatch(product, columns(index)) }
    };
    let num_panels = n.div_ceil(panel);
    if m * n * k < PARALLEL_MIN_WORK {
        (0..num_panels).for_each(run);
    } else {
        (0..num_panels).into_par_iter().for_each(run);
    }
}

/// Computes the columns of C from the first up to the second.
///
/// # Safety
/// As for [`multiply`]; nobody else uses these columns.
#[cfg(target_arch = "x86_64")]
unsafe fn dispatch(product: &Product, columns: (usize, usize)) {
    #[target_feature(enable = "avx512f")]
    fn avx512(product: &Product, columns: (usize, usize)) {
        // SAFETY: the caller's promise, and the CPU has been asked.
        unsafe { panel::<core::arch::x86_64::__m512>(product, columns) }
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2(product: &Product, columns: (usize, usize)) {
        // SAFETY: the caller's promise, and the CPU has been asked.
        unsafe { panel::<core::arch::x86_64::__m256>(product, columns) }
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has been asked.
        unsafe { avx512(product, columns) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has been asked.
        unsafe { avx2(product, columns) }
    } else {
        // SAFETY: the caller's promise; plain code runs everywhere.
        unsafe { panel::<[f32; 8]>(product, columns) }
    }
}

/// Computes the columns of C from the first up to the second.
///
/// # Safety
/// As for [`multiply`]; nobody else uses these columns.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn dispatch(product: &Product, columns: (usize, usize)) {
    // SAFETY: the caller's promise; the compiler makes NEON of it.
    unsafe { panel::<[f32; 8]>(product, columns) }
}

/// # Safety
/// As for [`dispatch`].
#[inline(always)]
unsafe fn panel<V: Vector>(product: &Product, (first, end): (usize, usize)) {
    let [m, ..] = product.size;
    if m == 1 {
        // SAFETY: the caller's promise.
        return unsafe { row::<V>(product, (first, end)) };
    }
    let full_end = end - (end - first) % TILE_COLUMNS;
    for rows in (0..m).step_by(BLOCK_ROWS) {
        let rows = rows..m.min(rows + BLOCK_ROWS);
        for column in (first..full_end).step_by(TILE_COLUMNS) {
            for row in rows.clone().step_by(V::TILE_ROWS) {
                // SAFETY: the caller's promise; the tile is inside C and the panel.
                unsafe {
                    match V::TILE_ROWS.min(rows.end - row) {
                        4 => tile::<V, 4, TILE_COLUMNS>(product, row, column),
                        3 => tile::<V, 3, TILE_COLUMNS>(product, row, column),
                        2 => tile::<V, 2, TILE_COLUMNS>(product, row, column),
                        _ => tile::<V, 1, TILE_COLUMNS>(product, row, column),
                    }
                }
            }
        }
        for column in full_end..end {
            for row in rows.clone() {
                // SAFETY: as above.
                unsafe { tile::<V, 1, 1>(product, row, column) };
            }
        }
    }
}

/// The only row of C.
///
/// # Safety
/// As for [`dispatch`].
#[inline(always)]
unsafe fn row<V: Vector>(product: &Product, (first, end): (usize, usize)) {
    let full_end = end - (end - first) % ROW_COLUMNS;
    for column in (first..full_end).step_by(ROW_COLUMNS) {
        // SAFETY: the caller's promise; the tile is inside C and the panel.
        unsafe { tile::<V, 1, ROW_COLUMNS>(product, 0, column) };
    }
    for column in full_end..end {
        // SAFETY: as above.
        unsafe { tile::<V, 1, 1>(product, 0, column) };
    }
}

/// # Safety
/// As for [`dispatch`]; the tile is inside C.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const COLUMNS: usize>(
    product: &Product,
    row: usize,
    column: usize,
) {
    let Product { size: [.., k], alpha, a, b, beta, c, c_row_stride } = *product;
    // SAFETY: reads stay in `k` values of each row of A and B that the tile
    // needs, writes in the tile; with beta 0, C is not read.
    unsafe {
        let a: [_; ROWS] = std::array::from_fn(|i| a.data.add((row + i) * a.row_stride));
        let b: [_; COLUMNS] = std::array::from_fn(|j| b.data.add((column + j) * b.column_stride));
        let mut sums = [[V::zero(); COLUMNS]; ROWS];
        let vectors_end = k - k % V::LANES;
        let mut at = 0;
        while at < vectors_end {
            let b: [V; COLUMNS] = std::array::from_fn(|j| V::load(b[j].add(at)));
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = V::load(a.add(at));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = sum.add_product(a, b);
                }
            }
            at += V::LANES;
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let mut dot = sum.sum();
                for at in vectors_end..k {
                    dot += *a[i].add(at) * *b[j].add(at);
                }
                let out = c.add((row + i) * c_row_stride + column + j);
                *out = if beta == 0.0 { alpha * dot } else { alpha * dot + beta * *out };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    use super::Vector;

    impl Vector for __m512 {
        const LANES: usize = 16;
        const TILE_ROWS: usize = 4;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's promise.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(data: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { _mm512_loadu_ps(data) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller's promise.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_reduce_add_ps(self) }
        }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;
        const TILE_ROWS: usize = 3;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's promise.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(data: *const f32) -> Self {
            // SAFETY: the caller's promise.
            unsafe { _mm256_loadu_ps(data) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller's promise.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: a register of eight f32 is an array of eight.
            let lanes: [f32; 8] = unsafe { core::mem::transmute(self) };
            super::sum_pairwise(lanes)
        }
    }
}

/// Plain code, which the compiler turns into what vectors the target always has.
impl Vector for [f32; 8] {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 8]
    }

    #[inline(always)]
    unsafe fn load(data: *const f32) -> Self {
        // SAFETY: the caller's promise; f32 arrays need no more than f32's alignment.
        unsafe { data.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // A fused one is a call into libm where the target lacks it.
        std::array::from_fn(|lane| self[lane] + a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        sum_pairwise(self)
    }
}

#[inline(always)]
fn sum_pairwise(lanes: [f32; 8]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests;
