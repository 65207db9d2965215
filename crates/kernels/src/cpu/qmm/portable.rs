//! The product of rows of `x` with unpacked weight rows, in plain Rust that the
//! compiler turns into vectors.

use super::{LANES, OutPtr};

/// All rows of `x` times some weight rows, both in memory order along `cols`,
/// which is a multiple of 32.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    /// `[num_tokens, cols]`.
    pub(super) x: &'a [f32],
    pub(super) num_tokens: usize,
    /// `[rows, cols]`.
    pub(super) w: &'a [f32],
    pub(super) cols: usize,
    /// Column of the output that the first weight row makes.
    pub(super) first: usize,
}

impl Tiles<'_> {
    pub(super) fn rows(&self) -> usize {
        self.w.len() / self.cols
    }
}

/// Runs [`tile`] over everything, `M` rows of `x` by `N` weight rows.
#[inline(always)]
fn all<const M: usize, const N: usize>(t: &Tiles<'_>, out: OutPtr) {
    let mut row = 0;
    while row + N <= t.rows() {
        let mut token = 0;
        while token + M <= t.num_tokens {
            tile::<M, N>(t, token, row, out);
            token += M;
        }
        while token < t.num_tokens {
            tile::<1, N>(t, token, row, out);
            token += 1;
        }
        row += N;
    }
    while row < t.rows() {
        for token in 0..t.num_tokens {
            tile::<1, 1>(t, token, row, out);
        }
        row += 1;
    }
}

#[inline(always)]
fn tile<const M: usize, const N: usize>(t: &Tiles<'_>, token: usize, row: usize, out: OutPtr) {
    let x: [&[f32]; M] = std::array::from_fn(|m| &t.x[(token + m) * t.cols..][..t.cols]);
    let w: [&[f32]; N] = std::array::from_fn(|n| &t.w[(row + n) * t.cols..][..t.cols]);
    let mut sums = [[[0.0_f32; LANES]; N]; M];
    for at in (0..t.cols).step_by(LANES) {
        for m in 0..M {
            let x: &[f32; LANES] = x[m][at..at + LANES].try_into().expect("a whole vector");
            for n in 0..N {
                let w: &[f32; LANES] = w[n][at..at + LANES].try_into().expect("a whole vector");
                for lane in 0..LANES {
                    sums[m][n][lane] = x[lane].mul_add(w[lane], sums[m][n][lane]);
                }
            }
        }
    }
    for (m, sums) in sums.iter().enumerate() {
        for (n, lanes) in sums.iter().enumerate() {
            #[expect(unsafe_code, reason = "the output is shared by tasks")]
            // SAFETY: the caller's output has a place for every row and column,
            // and these columns are this task's.
            unsafe {
                out.set(token + m, t.first + row + n, total(lanes));
            }
        }
    }
}

/// Halves added up.
#[inline(always)]
fn total(lanes: &[f32; LANES]) -> f32 {
    let mut lanes = *lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// For any processor. NEON is part of every aarch64, so it is used there.
pub(super) fn tiles(t: &Tiles<'_>, out: OutPtr) {
    all::<2, 2>(t, out);
}

/// For AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
pub(super) fn tiles_avx2(t: &Tiles<'_>, out: OutPtr) {
    #[target_feature(enable = "avx2,fma")]
    fn run(t: &Tiles<'_>, out: OutPtr) {
        all::<2, 2>(t, out);
    }
    #[expect(unsafe_code, reason = "the features were detected")]
    // SAFETY: this is called for `Isa::Avx2` only, which is detected.
    unsafe {
        run(t, out);
    }
}
