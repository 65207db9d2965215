//! One packed row to f32: `q * scale + bias`, rounded once.

use super::{Isa, LANES, Packed};

/// Unpacks a row, in the order that the kernels of `isa` want.
pub(super) fn row(isa: Isa, w: &Packed<'_>, row: usize, affine: (&[f32], &[f32]), out: &mut [f32]) {
    let bytes = w.row(row);
    match (isa, w.bits) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, 4) => super::avx512::unpack_4(bytes, w.group_size, affine, out),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx2, _) => {
            #[target_feature(enable = "avx2,fma")]
            fn run(w: &Packed<'_>, bytes: &[u8], affine: (&[f32], &[f32]), out: &mut [f32]) {
                any_bits(w, bytes, affine, out);
            }
            #[expect(unsafe_code, reason = "the features were detected")]
            // SAFETY: both have AVX2 and FMA.
            unsafe {
                run(w, bytes, affine, out);
            }
        }
        (Isa::Portable, _) => any_bits(w, bytes, affine, out),
    }
}

#[inline(always)]
fn any_bits(w: &Packed<'_>, bytes: &[u8], affine: (&[f32], &[f32]), out: &mut [f32]) {
    match w.bits {
        2 => groups::<2>(w, bytes, affine, out),
        3 => groups::<3>(w, bytes, affine, out),
        4 => groups::<4>(w, bytes, affine, out),
        5 => groups::<5>(w, bytes, affine, out),
        6 => groups::<6>(w, bytes, affine, out),
        _ => groups::<8>(w, bytes, affine, out),
    }
}

#[inline(always)]
fn groups<const BITS: usize>(
    w: &Packed<'_>,
    bytes: &[u8],
    (scales, biases): (&[f32], &[f32]),
    out: &mut [f32],
) {
    let group_bytes = w.group_size * BITS / 8;
    let parts = out.chunks_exact_mut(w.group_size).zip(bytes.chunks_exact(group_bytes));
    for ((out, bytes), (scale, bias)) in parts.zip(scales.iter().zip(biases)) {
        // Sixteen values are 2 * BITS bytes, always whole.
        for (out, bytes) in out.chunks_exact_mut(LANES).zip(bytes.chunks_exact(2 * BITS)) {
            let mut codes = [0_u8; LANES];
            for (half, bytes) in bytes.chunks_exact(BITS).enumerate() {
                let mut word = [0; 8];
                word[..BITS].copy_from_slice(bytes);
                let word = u64::from_le_bytes(word);
                for value in 0..8 {
                    codes[half * 8 + value] = ((word >> (value * BITS)) & ((1 << BITS) - 1)) as u8;
                }
            }
            for lane in 0..LANES {
                out[lane] = f32::from(codes[lane]).mul_add(*scale, *bias);
            }
        }
    }
}
