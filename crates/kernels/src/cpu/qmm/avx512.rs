//! AVX-512: four-bit weights are looked up, sixteen at a time.
//!
//! `vpermps` picks each lane from a table of sixteen floats by the low four bits
//! of its index. The table of a group is `code * scale + bias` for all codes, so
//! a byte gives two weights with a shift and two lookups, already scaled. Low
//! and high halves of sixteen bytes are every other weight, hence the order of
//! `x` ([`super::split_pairs`]).

#![expect(unsafe_code, reason = "intrinsics, on memory that the callers checked")]

use std::{arch::x86_64::*, ops::Range};

use super::{LANES, OutPtr, Packed, portable::Tiles};

/// Products of up to four rows of `x` with packed rows.
pub(super) fn few_rows(
    (x, num_tokens): (&[f32], usize),
    w: &Packed<'_>,
    rows: Range<usize>,
    affine: &[f32],
    out: OutPtr,
) {
    // SAFETY: AVX-512 was detected. `x` has `num_tokens` rows.
    unsafe {
        match (w.bits, num_tokens) {
            (4, 1) => each::<4, 1, 8>(x, w, rows, affine, out),
            (4, 2) => each::<4, 2, 4>(x, w, rows, affine, out),
            (4, 3) => each::<4, 3, 4>(x, w, rows, affine, out),
            (4, _) => each::<4, 4, 4>(x, w, rows, affine, out),
            (_, 1) => each::<8, 1, 8>(x, w, rows, affine, out),
            (_, 2) => each::<8, 2, 4>(x, w, rows, affine, out),
            (_, 3) => each::<8, 3, 4>(x, w, rows, affine, out),
            (_, _) => each::<8, 4, 4>(x, w, rows, affine, out),
        }
    }
}

/// # Safety
/// AVX-512F and BW; `x` has `M` rows; `affine` is of these rows.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn each<const BITS: usize, const M: usize, const N: usize>(
    x: &[f32],
    w: &Packed<'_>,
    rows: Range<usize>,
    affine: &[f32],
    out: OutPtr,
) {
    debug_assert_eq!(x.len(), M * w.cols);
    let whole = rows.len() / N * N;
    for at in (0..whole).step_by(N) {
        // SAFETY: as promised, and `N` rows are left.
        unsafe { packed_tile::<BITS, M, N>(x, w, (rows.start + at, at), affine, out) };
    }
    for at in whole..rows.len() {
        // SAFETY: as above, one row.
        unsafe { packed_tile::<BITS, M, 1>(x, w, (rows.start + at, at), affine, out) };
    }
}

/// # Safety
/// As for [`each`], and `N` rows from `row` on; `at` is the place of `row` in
/// `affine`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
#[expect(clippy::needless_range_loop, reason = "the same index into several registers")]
unsafe fn packed_tile<const BITS: usize, const M: usize, const N: usize>(
    x: &[f32],
    w: &Packed<'_>,
    (row, at): (usize, usize),
    affine: &[f32],
    out: OutPtr,
) {
    let (groups, group_bytes) = (w.groups(), w.group_size * BITS / 8);
    let (scales, biases) = affine.split_at(affine.len() / 2);
    // Closures do not take over their function's features: plain loops.
    let mut bytes = [std::ptr::null(); N];
    for (n, bytes) in bytes.iter_mut().enumerate() {
        *bytes = w.row(row + n).as_ptr();
    }
    let codes = _mm512_setr_ps(
        0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
    );
    let zero = _mm512_setzero_ps();
    let mut sums = [[zero; N]; M];
    for group in 0..groups {
        let (mut scale, mut bias, mut table) = ([zero; N], [zero; N], [zero; N]);
        for n in 0..N {
            let place = (at + n) * groups + group;
            scale[n] = _mm512_set1_ps(scales[place]);
            bias[n] = _mm512_set1_ps(biases[place]);
            table[n] = _mm512_fmadd_ps(codes, scale[n], bias[n]);
        }
        for block in (0..group_bytes).step_by(LANES) {
            let byte = group * group_bytes + block;
            let column = byte * 8 / BITS;
            for n in 0..N {
                // SAFETY: sixteen bytes of the row, and rows of `x` from
                // `column` on as many elements as they hold.
                unsafe {
                    let packed = _mm_loadu_si128(bytes[n].add(byte).cast());
                    let packed = _mm512_cvtepu8_epi32(packed);
                    let x = x.as_ptr().add(column);
                    if BITS == 4 {
                        let low = _mm512_permutexvar_ps(packed, table[n]);
                        let high = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(packed), table[n]);
                        for m in 0..M {
                            let even = _mm512_loadu_ps(x.add(m * w.cols));
                            let odd = _mm512_loadu_ps(x.add(m * w.cols + LANES));
                            sums[m][n] = _mm512_fmadd_ps(even, low, sums[m][n]);
                            sums[m][n] = _mm512_fmadd_ps(odd, high, sums[m][n]);
                        }
                    } else {
                        let weights =
                            _mm512_fmadd_ps(_mm512_cvtepi32_ps(packed), scale[n], bias[n]);
                        for m in 0..M {
                            let x = _mm512_loadu_ps(x.add(m * w.cols));
                            sums[m][n] = _mm512_fmadd_ps(x, weights, sums[m][n]);
                        }
                    }
                }
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            // SAFETY: an output of this task.
            unsafe { out.set(m, row + n, _mm512_reduce_add_ps(*sum)) };
        }
    }
}

/// A four-bit row as f32, even elements of each 32 first.
pub(super) fn unpack_4(
    bytes: &[u8],
    group_size: usize,
    (scales, biases): (&[f32], &[f32]),
    out: &mut [f32],
) {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn run(bytes: &[u8], group_size: usize, affine: (&[f32], &[f32]), out: &mut [f32]) {
        let codes = _mm512_setr_ps(
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
        );
        let groups = bytes.chunks_exact(group_size / 2).zip(out.chunks_exact_mut(group_size));
        for ((bytes, out), (scale, bias)) in groups.zip(affine.0.iter().zip(affine.1)) {
            let table = _mm512_fmadd_ps(codes, _mm512_set1_ps(*scale), _mm512_set1_ps(*bias));
            let blocks = bytes.chunks_exact(LANES).zip(out.chunks_exact_mut(2 * LANES));
            for (bytes, out) in blocks {
                // SAFETY: sixteen bytes in, 32 floats out.
                unsafe {
                    let packed = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
                    let low = _mm512_permutexvar_ps(packed, table);
                    let high = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(packed), table);
                    _mm512_storeu_ps(out.as_mut_ptr(), low);
                    _mm512_storeu_ps(out.as_mut_ptr().add(LANES), high);
                }
            }
        }
    }
    // SAFETY: AVX-512 was detected.
    unsafe { run(bytes, group_size, (scales, biases), out) }
}

/// All rows of `x` times unpacked weight rows.
pub(super) fn tiles(t: &Tiles<'_>, out: OutPtr) {
    // SAFETY: AVX-512 was detected.
    unsafe { all(t, out) }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn all(t: &Tiles<'_>, out: OutPtr) {
    const N: usize = 4;
    let whole = t.rows() / N * N;
    for row in (0..whole).step_by(N) {
        // SAFETY: as many rows and tokens are left as each tile takes.
        unsafe {
            let mut token = 0;
            while token + 6 <= t.num_tokens {
                tile::<6, N>(t, token, row, out);
                token += 6;
            }
            match t.num_tokens - token {
                1 => tile::<1, N>(t, token, row, out),
                2 => tile::<2, N>(t, token, row, out),
                3 => tile::<3, N>(t, token, row, out),
                4 => tile::<4, N>(t, token, row, out),
                5 => tile::<5, N>(t, token, row, out),
                _ => {}
            }
        }
    }
    for row in whole..t.rows() {
        for token in 0..t.num_tokens {
            // SAFETY: one of each.
            unsafe { tile::<1, 1>(t, token, row, out) };
        }
    }
}

/// # Safety
/// `M` tokens from `token` on, and `N` rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn tile<const M: usize, const N: usize>(
    t: &Tiles<'_>,
    token: usize,
    row: usize,
    out: OutPtr,
) {
    let x = t.x[token * t.cols..][..M * t.cols].as_ptr();
    let w = t.w[row * t.cols..][..N * t.cols].as_ptr();
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    for at in (0..t.cols).step_by(LANES) {
        // SAFETY: inside the rows that were sliced above.
        unsafe {
            let mut weights = [_mm512_setzero_ps(); N];
            for (n, weights) in weights.iter_mut().enumerate() {
                *weights = _mm512_loadu_ps(w.add(n * t.cols + at));
            }
            for m in 0..M {
                let x = _mm512_loadu_ps(x.add(m * t.cols + at));
                for n in 0..N {
                    sums[m][n] = _mm512_fmadd_ps(x, weights[n], sums[m][n]);
                }
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (n, sum) in sums.iter().enumerate() {
            // SAFETY: an output of this task.
            unsafe { out.set(token + m, t.first + row + n, _mm512_reduce_add_ps(*sum)) };
        }
    }
}
