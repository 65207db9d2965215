//! AVX2 with FMA. Up to 3 bits, a group's values are looked up in a register.

use core::arch::x86_64::*;

use half::{bf16, f16};

use super::{Vector, run_at};

/// A unit, by what its `v`th register is. Not a function that takes a closure: four calls
/// of one may be more than the compiler likes to inline.
macro_rules! each {
    (|$v:ident| $vector:expr) => {
        [
            each!($v = 0, $vector),
            each!($v = 1, $vector),
            each!($v = 2, $vector),
            each!($v = 3, $vector),
        ]
    };
    ($v:ident = $number:literal, $vector:expr) => {{
        let $v = $number;
        $vector
    }};
}

impl Vector for __m256 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 3;
    const MAX_DIRECT_ROWS: usize = 4;

    type Unit = [Self; 4];
    /// All values of a group up to 3 bits, else the scale and the bias.
    type Group = [Self; 2];

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
    unsafe fn store(self, data: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(data, self) }
    }

    #[inline(always)]
    unsafe fn prefetch(data: *const u8) {
        // SAFETY: the caller's promise; a prefetch of any address is fine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.cast()) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let quarters =
                _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let pairs = _mm_add_ps(quarters, _mm_movehl_ps(quarters, quarters));
            _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
        }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let quarters = |x| _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let [a, b, c, d] = [quarters(a), quarters(b), quarters(c), quarters(d)];
            let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
            let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
            let even = _mm_shuffle_ps::<0b10_00_10_00>(ab, cd);
            let odd = _mm_shuffle_ps::<0b11_01_11_01>(ab, cd);
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(even, odd));
            out
        }
    }

    #[inline(always)]
    unsafe fn unit_f32(data: *const f32) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe { each!(|v| _mm256_loadu_ps(data.add(8 * v))) }
    }

    #[inline(always)]
    unsafe fn unit_bf16(data: *const bf16) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe {
            each!(|v| {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(data.add(8 * v).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
            })
        }
    }

    #[inline(always)]
    unsafe fn unit_f16(data: *const f16) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe { each!(|v| _mm256_cvtph_ps(_mm_loadu_si128(data.add(8 * v).cast()))) }
    }

    #[inline(always)]
    unsafe fn affine_group<const BITS: usize>(scale: f32, bias: f32) -> Self::Group {
        // SAFETY: the caller's promise.
        unsafe {
            let (scale, bias) = (_mm256_set1_ps(scale), _mm256_set1_ps(bias));
            if BITS > 3 {
                return [scale, bias];
            }
            // A look-up takes three bits of an index; those above `BITS` must not matter.
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let q = _mm256_and_si256(lanes, _mm256_set1_epi32((1 << BITS) - 1));
            [_mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(q), bias), bias]
        }
    }

    #[inline(always)]
    unsafe fn unit_affine<const BITS: usize>(data: *const u8, group: Self::Group) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe { each!(|v| eight::<BITS>(data, v, group)) }
    }
}

/// The `v`th eight weights of a unit.
///
/// # Safety
/// The CPU has the instructions; the unit can be read.
#[inline(always)]
unsafe fn eight<const BITS: usize>(data: *const u8, v: usize, group: [__m256; 2]) -> __m256 {
    // SAFETY: the caller's promise; `run_at` stays inside the unit.
    unsafe {
        let word = |first: usize| {
            let (byte, shift) = run_at(BITS, first);
            (data.add(byte).cast::<i32>().read_unaligned(), shift as i32)
        };
        let bits = BITS as i32;
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let q = match BITS {
            8 => _mm256_cvtepu8_epi32(_mm_loadl_epi64(data.add(8 * v).cast())),
            2..=4 => {
                let (word, shift) = word(8 * v);
                let steps = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(bits));
                let shifts = _mm256_add_epi32(steps, _mm256_set1_epi32(shift));
                _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts)
            }
            _ => {
                let ((low, low_shift), (high, high_shift)) = (word(8 * v), word(8 * v + 4));
                let shifts = _mm256_setr_epi32(
                    low_shift,
                    low_shift + bits,
                    low_shift + 2 * bits,
                    low_shift + 3 * bits,
                    high_shift,
                    high_shift + bits,
                    high_shift + 2 * bits,
                    high_shift + 3 * bits,
                );
                let words = _mm256_set_m128i(_mm_set1_epi32(high), _mm_set1_epi32(low));
                _mm256_srlv_epi32(words, shifts)
            }
        };
        if BITS <= 3 {
            return _mm256_permutevar8x32_ps(group[0], q);
        }
        let q = _mm256_and_si256(q, _mm256_set1_epi32((1 << BITS) - 1));
        _mm256_fmadd_ps(group[0], _mm256_cvtepi32_ps(q), group[1])
    }
}
