//! AVX-512. Up to 5 bits, a group's values are looked up in a register.

use core::arch::x86_64::*;

use half::{bf16, f16};

use super::Vector;

impl Vector for __m512 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 6;
    const MAX_DIRECT_ROWS: usize = 8;

    type Unit = [Self; 2];
    /// All values of a group up to 5 bits, else the scale and the bias.
    type Group = [Self; 2];

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
    unsafe fn store(self, data: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(data, self) }
    }

    #[inline(always)]
    unsafe fn prefetch(data: *const u8) {
        // SAFETY: the caller's promise; a prefetch of any address is fine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.cast()) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { Self::sum4([self; 4])[0] }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            // Halves of a and b side by side, then quarters of all four.
            let ab = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
                _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
            );
            let cd = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b01_00_01_00>(c, d),
                _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d),
            );
            let abcd = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
            );
            let pairs = _mm512_add_ps(abcd, _mm512_permute_ps::<0b01_00_11_10>(abcd));
            let sums = _mm512_add_ps(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs));
            // The sums stand at the beginning of each quarter.
            let lanes = _mm512_maskz_compress_ps(0b0001_0001_0001_0001, sums);
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), _mm512_castps512_ps128(lanes));
            out
        }
    }

    #[inline(always)]
    unsafe fn unit_f32(data: *const f32) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe { [_mm512_loadu_ps(data), _mm512_loadu_ps(data.add(16))] }
    }

    #[inline(always)]
    unsafe fn unit_bf16(data: *const bf16) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe { [widen_bf16(data), widen_bf16(data.add(16))] }
    }

    #[inline(always)]
    unsafe fn unit_f16(data: *const f16) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe {
            [
                _mm512_cvtph_ps(_mm256_loadu_si256(data.cast())),
                _mm512_cvtph_ps(_mm256_loadu_si256(data.add(16).cast())),
            ]
        }
    }

    #[inline(always)]
    unsafe fn affine_group<const BITS: usize>(scale: f32, bias: f32) -> Self::Group {
        // SAFETY: the caller's promise.
        unsafe {
            let (scale, bias) = (_mm512_set1_ps(scale), _mm512_set1_ps(bias));
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let values = |q: __m512i| _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(q), bias);
            match BITS {
                // A look-up takes four bits of an index; those above `BITS` must not matter.
                2..=4 => {
                    let q = _mm512_and_si512(lanes, _mm512_set1_epi32((1 << BITS) - 1));
                    [values(q), bias]
                }
                5 => [values(lanes), values(_mm512_add_epi32(lanes, _mm512_set1_epi32(16)))],
                _ => [scale, bias],
            }
        }
    }

    #[inline(always)]
    unsafe fn unit_affine<const BITS: usize>(data: *const u8, group: Self::Group) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe {
            match BITS {
                2 => {
                    let words = _mm512_set1_epi64(data.cast::<i64>().read_unaligned());
                    let shifts =
                        _mm512_setr_epi32(0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14);
                    let high = _mm512_add_epi32(shifts, _mm512_set1_epi32(16));
                    [
                        _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), group[0]),
                        _mm512_permutexvar_ps(_mm512_srlv_epi32(words, high), group[0]),
                    ]
                }
                4 => {
                    let words = _mm512_broadcast_i32x4(_mm_loadu_si128(data.cast()));
                    let shifts =
                        _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
                    let high = _mm512_add_epi32(shifts, _mm512_set1_epi32(16));
                    [
                        _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), group[0]),
                        _mm512_permutexvar_ps(_mm512_srlv_epi32(words, high), group[0]),
                    ]
                }
                8 => {
                    let [scale, bias] = group;
                    let half = |at: usize| {
                        let q = _mm512_cvtepu8_epi32(_mm_loadu_si128(data.add(at).cast()));
                        _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(q), bias)
                    };
                    [half(0), half(16)]
                }
                _ => {
                    [from_bytes::<BITS>(data, group), from_bytes::<BITS>(data.add(2 * BITS), group)]
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn arrange<const BITS: usize>(unit: Self::Unit) -> Self::Unit {
        // The lanes of a vector take turns through the words of the unit.
        let num_words = BITS as i32;
        let at = |lane: i32| lane % num_words * (32 / num_words) + lane / num_words;
        // SAFETY: the caller's promise.
        unsafe {
            match BITS {
                2 | 4 => {
                    let first = _mm512_setr_epi32(
                        at(0),
                        at(1),
                        at(2),
                        at(3),
                        at(4),
                        at(5),
                        at(6),
                        at(7),
                        at(8),
                        at(9),
                        at(10),
                        at(11),
                        at(12),
                        at(13),
                        at(14),
                        at(15),
                    );
                    // In each word, the other half of its values.
                    let second = _mm512_add_epi32(first, _mm512_set1_epi32(16 / num_words));
                    [
                        _mm512_permutex2var_ps(unit[0], first, unit[1]),
                        _mm512_permutex2var_ps(unit[0], second, unit[1]),
                    ]
                }
                _ => unit,
            }
        }
    }
}

/// # Safety
/// The CPU has the instructions; 16 values can be read.
#[inline(always)]
unsafe fn widen_bf16(data: *const bf16) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(data.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
    }
}

/// Sixteen weights of 3, 5 or 6 bits, whose bytes are first spread over the lanes.
///
/// # Safety
/// The CPU has the instructions; `2 * BITS` bytes can be read.
#[inline(always)]
unsafe fn from_bytes<const BITS: usize>(data: *const u8, group: [__m512; 2]) -> __m512 {
    // SAFETY: the caller's promise; no byte outside the mask is read.
    unsafe {
        let bytes = _mm_maskz_loadu_epi8(((1_u32 << (2 * BITS)) - 1) as u16, data.cast());
        let spread = _mm512_loadu_si512(Spread::<BITS>::BYTES.as_ptr().cast());
        let shifts = _mm512_loadu_si512(Spread::<BITS>::SHIFTS.as_ptr().cast());
        let spread = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), spread);
        let q = _mm512_srlv_epi32(spread, shifts);
        match BITS {
            3 => _mm512_permutexvar_ps(q, group[0]),
            5 => _mm512_permutex2var_ps(group[0], q, group[1]),
            _ => {
                let q = _mm512_and_si512(q, _mm512_set1_epi32((1 << BITS) - 1));
                _mm512_fmadd_ps(group[0], _mm512_cvtepi32_ps(q), group[1])
            }
        }
    }
}

/// Which bytes hold the weight of a lane, and where in them it begins.
struct Spread<const BITS: usize>;

impl<const BITS: usize> Spread<BITS> {
    const BYTES: [u8; 64] = {
        // The highest bit makes a byte zero.
        let mut bytes = [0x80; 64];
        let mut lane = 0;
        while lane < 16 {
            let byte = BITS * lane / 8;
            bytes[4 * lane] = byte as u8;
            if byte + 1 < 2 * BITS {
                bytes[4 * lane + 1] = (byte + 1) as u8;
            }
            lane += 1;
        }
        bytes
    };

    const SHIFTS: [u32; 16] = {
        let mut shifts = [0; 16];
        let mut lane = 0;
        while lane < 16 {
            shifts[lane] = (BITS * lane % 8) as u32;
            lane += 1;
        }
        shifts
    };
}
