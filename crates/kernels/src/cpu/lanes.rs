//! Sixteen floats at once, by what the processor has. Kernels are written once
//! over [`Vector`], inlined whole into a function with the right features
//! (`with_best`), and so give the same sums everywhere but for the fused
//! operations' order, which is the same too.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Floats in a [`Vector`].
pub(super) const LANES: usize = 16;

/// Sixteen f32.
pub(super) trait Vector: Copy {
    fn splat(value: f32) -> Self;
    /// # Safety
    /// Sixteen floats are readable at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// Sixteen floats are writable at `to`.
    unsafe fn store(self, to: *mut f32);
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// The greater; `b` if one is NaN.
    fn max(self, b: Self) -> Self;
    /// To the nearest integer, ties to even.
    fn round(self) -> Self;
    /// `self * 2^n` for integral `n` from -126 to 127.
    fn scale2(self, n: Self) -> Self;
    /// `self` where `x >= limit`, else 0.
    fn zero_below(self, x: Self, limit: Self) -> Self;

    /// Lane `j` of vector `i` to lane `i` of vector `j`.
    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut from = [[0.0; LANES]; LANES];
        for (from, row) in from.iter_mut().zip(rows) {
            *from = row.to_array();
        }
        let mut out = rows;
        for (j, out) in out.iter_mut().enumerate() {
            let mut column = [0.0; LANES];
            for (to, from) in column.iter_mut().zip(&from) {
                *to = from[j];
            }
            // SAFETY: sixteen floats.
            *out = unsafe { Self::load(column.as_ptr()) };
        }
        out
    }
    /// Asks for the cache line at an address, any, to be at hand soon.
    #[inline(always)]
    fn prefetch(_data: *const f32) {}

    fn to_array(self) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        // SAFETY: `out` has sixteen floats.
        unsafe { self.store(out.as_mut_ptr()) };
        out
    }

    /// Halves added up, the same way everywhere.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = self.to_array();
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    #[inline(always)]
    fn greatest(self) -> f32 {
        self.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// `e^self`, to about 1e-7 relative; exactly 0 below -87, capped at 88.
    #[inline(always)]
    fn exp(self) -> Self {
        const LOW: f32 = -87.0;
        // Coefficients of Cephes' expf (S. Moshier).
        const POLY: [f32; 6] =
            [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
        let x = self.max(Self::splat(LOW));
        let x = Self::splat(0.0).sub(Self::splat(0.0).sub(x).max(Self::splat(-88.0)));
        let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
        let r = n.fma(Self::splat(-0.693_359_4), x);
        let r = n.fma(Self::splat(2.121_944_4e-4), r);
        let mut poly = Self::splat(POLY[0]);
        for coefficient in &POLY[1..] {
            poly = poly.fma(r, Self::splat(*coefficient));
        }
        let value = poly.fma(r.mul(r), r).add(Self::splat(1.0));
        value.scale2(n).zero_below(self, Self::splat(LOW))
    }
}

/// A computation that is written once for all vectors.
pub(super) trait WithVector {
    /// Must be `#[inline(always)]`, and so must all that it calls.
    fn run<V: Vector>(self);
}

/// Runs with the widest vectors that the processor has.
pub(super) fn with_best(work: impl WithVector) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
            // SAFETY: just detected.
            return unsafe { with_avx512(work) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: just detected.
            return unsafe { with_avx2(work) };
        }
    }
    work.run::<Portable>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn with_avx512(work: impl WithVector) {
    work.run::<Avx512>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2(work: impl WithVector) {
    work.run::<Avx2>();
}

/// Plain Rust. NEON is part of every aarch64, so compilers use it there.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn each(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], b.0[lane])))
    }
}

impl Vector for Portable {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].mul_add(b.0[lane], c.0[lane])))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.each(b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.each(b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.each(b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.each(b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.each(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        self.each(n, |a, n| a * f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn zero_below(self, x: Self, limit: Self) -> Self {
        Self(std::array::from_fn(
            |lane| if x.0[lane] >= limit.0[lane] { self.0[lane] } else { 0.0 },
        ))
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

/// One intrinsic on one register.
#[cfg(target_arch = "x86_64")]
macro_rules! avx512 {
    ($($name:ident($($arg:ident),*) = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self),*) -> Self {
            // SAFETY: this type is used where AVX-512F and DQ were detected.
            Self(unsafe { $intrinsic(self.0, $($arg.0),*) })
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
impl Vector for Avx512 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX-512F was detected.
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    avx512! {
        fma(b, c) = _mm512_fmadd_ps;
        add(b) = _mm512_add_ps;
        sub(b) = _mm512_sub_ps;
        mul(b) = _mm512_mul_ps;
        div(b) = _mm512_div_ps;
        max(b) = _mm512_max_ps;
        round() = _mm512_roundscale_ps::<0>;
        scale2(n) = _mm512_scalef_ps;
    }
    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut a = rows;
        let mut b = rows;
        // SAFETY: AVX-512F was detected.
        unsafe {
            // Pairs, then fours of neighbours, within quarters of a vector.
            for i in (0..LANES).step_by(2) {
                b[i].0 = _mm512_unpacklo_ps(a[i].0, a[i + 1].0);
                b[i + 1].0 = _mm512_unpackhi_ps(a[i].0, a[i + 1].0);
            }
            for i in (0..LANES).step_by(4) {
                for j in 0..2 {
                    let low = _mm512_castps_pd(b[i + j].0);
                    let high = _mm512_castps_pd(b[i + j + 2].0);
                    a[i + 2 * j].0 = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    a[i + 2 * j + 1].0 = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            // Quarters: those of vectors four apart, then eight apart.
            for i in (0..LANES).step_by(8) {
                for j in 0..4 {
                    b[i + j].0 = _mm512_shuffle_f32x4::<0x88>(a[i + j].0, a[i + j + 4].0);
                    b[i + j + 4].0 = _mm512_shuffle_f32x4::<0xdd>(a[i + j].0, a[i + j + 4].0);
                }
            }
            for i in 0..8 {
                a[i].0 = _mm512_shuffle_f32x4::<0x88>(b[i].0, b[i + 8].0);
                a[i + 8].0 = _mm512_shuffle_f32x4::<0xdd>(b[i].0, b[i + 8].0);
            }
        }
        a
    }
    #[inline(always)]
    fn prefetch(data: *const f32) {
        // SAFETY: a prefetch of any address is fine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.cast()) }
    }
    #[inline(always)]
    fn zero_below(self, x: Self, limit: Self) -> Self {
        // SAFETY: AVX-512F was detected.
        Self(unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x.0, limit.0), self.0) })
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2([__m256; 2]);

/// One intrinsic on both registers.
#[cfg(target_arch = "x86_64")]
macro_rules! avx2 {
    ($($name:ident($($arg:ident),*) = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self),*) -> Self {
            // SAFETY: this type is used where AVX2 and FMA were detected.
            Self(unsafe {
                [$intrinsic(self.0[0], $($arg.0[0]),*), $intrinsic(self.0[1], $($arg.0[1]),*)]
            })
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
impl Vector for Avx2 {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX was detected.
        Self([unsafe { _mm256_set1_ps(value) }; 2])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }
    avx2! {
        fma(b, c) = _mm256_fmadd_ps;
        add(b) = _mm256_add_ps;
        sub(b) = _mm256_sub_ps;
        mul(b) = _mm256_mul_ps;
        div(b) = _mm256_div_ps;
        max(b) = _mm256_max_ps;
        round() = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>;
    }
    #[inline(always)]
    fn prefetch(data: *const f32) {
        // SAFETY: a prefetch of any address is fine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.cast()) }
    }
    #[inline(always)]
    fn scale2(self, n: Self) -> Self {
        let half = |x: __m256, n: __m256| {
            // SAFETY: AVX2 was detected.
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
            }
        };
        Self([half(self.0[0], n.0[0]), half(self.0[1], n.0[1])])
    }
    #[inline(always)]
    fn zero_below(self, x: Self, limit: Self) -> Self {
        let half = |value: __m256, x: __m256, limit: __m256| {
            // SAFETY: AVX was detected.
            unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x, limit), value) }
        };
        Self([half(self.0[0], x.0[0], limit.0[0]), half(self.0[1], x.0[1], limit.0[1])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp<'a>(&'a [f32], &'a mut Vec<f32>);

    impl WithVector for Exp<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            for x in self.0.chunks_exact(LANES) {
                // SAFETY: sixteen floats.
                self.1.extend(unsafe { V::load(x.as_ptr()) }.exp().to_array());
            }
        }
    }

    struct Transpose<'a>(&'a [f32], &'a mut Vec<f32>);

    impl WithVector for Transpose<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            let mut rows = [V::splat(0.0); LANES];
            for (row, from) in rows.iter_mut().zip(self.0.chunks_exact(LANES)) {
                // SAFETY: sixteen floats.
                *row = unsafe { V::load(from.as_ptr()) };
            }
            for row in V::transpose(rows) {
                self.1.extend(row.to_array());
            }
        }
    }

    #[test]
    fn rows_become_columns_on_every_path() {
        let rows: Vec<f32> = (0..LANES * LANES).map(|at| at as f32).collect();
        let columns: Vec<f32> =
            (0..LANES * LANES).map(|at| (at % LANES * LANES + at / LANES) as f32).collect();
        let (mut best, mut portable) = (Vec::new(), Vec::new());
        with_best(Transpose(&rows, &mut best));
        Transpose(&rows, &mut portable).run::<Portable>();
        assert_eq!(best, columns);
        assert_eq!(portable, columns);
    }

    #[test]
    fn exp_is_close_and_the_same_on_every_path() {
        let mut xs: Vec<f32> = (0..16_000).map(|i| i as f32 * 0.01 - 86.9).collect();
        xs[..4].copy_from_slice(&[f32::NEG_INFINITY, -87.1, 0.0, -1e30]);
        let (mut best, mut portable) = (Vec::new(), Vec::new());
        with_best(Exp(&xs, &mut best));
        Exp(&xs, &mut portable).run::<Portable>();
        assert_eq!(best, portable);
        assert_eq!(best[..4], [0.0, 0.0, 1.0, 0.0]);
        for (x, y) in xs.iter().zip(&best).skip(4) {
            let exact = f64::from(*x).exp();
            let off = (f64::from(*y) - exact).abs() / exact;
            assert!(off < 2e-7, "exp({x}) = {y}, off by {off:e}");
        }
    }
}
