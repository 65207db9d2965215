//! GGUF blocks that MLX has no packing for: they are decoded to the numbers they stand
//! for, and packed anew.
//!
//! Upstream of the layouts: `ggml-quants.c`.

use super::blocks::float;

/// Kinds of blocks whose numbers are no affine function of codes in groups of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodedKind {
    /// 2 bits, groups of 16 with 4-bit scales and minima.
    Q2K,
    /// 3 bits, groups of 16 with 6-bit scales.
    Q3K,
    /// 6 bits, groups of 16 with 8-bit scales.
    Q6K,
    /// 4-bit indices into a table, groups of 32.
    Iq4Nl,
    /// The same with 6-bit scales of a larger block.
    Iq4Xs,
}

/// What the 4-bit indices of the IQ4 kinds stand for.
const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl DecodedKind {
    /// Name in GGUF files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Iq4Xs => "IQ4_XS",
        }
    }

    /// Elements of a block.
    pub(crate) fn elements(self) -> usize {
        if self == Self::Iq4Nl { 32 } else { 256 }
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::Q2K => 16 + 64 + 2 + 2,
            Self::Q3K => 32 + 64 + 12 + 2,
            Self::Q6K => 128 + 64 + 16 + 2,
            Self::Iq4Nl => 2 + 16,
            Self::Iq4Xs => 2 + 2 + 4 + 128,
        }
    }

    /// Appends the numbers of blocks to `out`.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        for block in bytes.chunks_exact(self.block_bytes()) {
            match self {
                Self::Q2K => q2_k(block, out),
                Self::Q3K => q3_k(block, out),
                Self::Q6K => q6_k(block, out),
                Self::Iq4Nl => iq4(float(block, 0), &block[2..], out),
                Self::Iq4Xs => iq4_xs(block, out),
            }
        }
    }
}

/// Two bits of each of 16 bytes, in the order of the 16 groups of a block of 256: the
/// groups of one half of the block share bytes, four shifts of two groups each.
fn two_bits(bytes: &[u8]) -> impl Iterator<Item = (usize, impl Iterator<Item = u8>)> {
    (0..16).map(move |group| {
        let (half, shift, side) = (group / 8, group % 8 / 2 * 2, group % 2);
        let start = half * 32 + side * 16;
        (group, bytes[start..start + 16].iter().map(move |byte| byte >> shift & 3))
    })
}

fn q2_k(block: &[u8], out: &mut Vec<f32>) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (scale, min) = (float(block, 80), float(block, 82));
    for (group, codes) in two_bits(codes) {
        let scale = scale * f32::from(scales[group] & 0xf);
        let min = min * f32::from(scales[group] >> 4);
        out.extend(codes.map(|code| scale * f32::from(code) - min));
    }
}

fn q3_k(block: &[u8], out: &mut Vec<f32>) {
    let (high, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = float(block, 108);
    // Four bits each in the first eight bytes, two more in the last four.
    let six_bits = |group: usize| {
        let low = scales[group % 8] >> (group / 8 * 4) & 0xf;
        let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        f32::from(low | high << 4) - 32.0
    };
    for (group, codes) in two_bits(codes) {
        let scale = scale * six_bits(group);
        // A bit for each two groups, which says that nothing is taken off.
        let (bit, start) = (group / 2, group % 2 * 16);
        let above = high[start..start + 16].iter().map(|byte| byte >> bit & 1);
        let code = |(code, above): (u8, u8)| f32::from(code) - 4.0 * f32::from(1 - above);
        out.extend(codes.zip(above).map(|pair| scale * code(pair)));
    }
}

fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = float(block, 208);
    for element in 0..256 {
        // Halves of 128; in each, four runs of 32 share the high bits' bytes.
        let (half, run, at) = (element / 128, element % 128 / 32, element % 32);
        let low = low[half * 64 + run % 2 * 32 + at] >> (run / 2 * 4) & 0xf;
        let high = high[half * 32 + at] >> (run * 2) & 3;
        let code = f32::from(low | high << 4) - 32.0;
        out.push(scale * f32::from(scales[element / 16].cast_signed()) * code);
    }
}

/// 32 indices: 16 in the low halves of bytes, 16 in the high ones.
fn iq4(scale: f32, indices: &[u8], out: &mut Vec<f32>) {
    let value = |index: u8| scale * f32::from(IQ4_VALUES[usize::from(index)]);
    out.extend(indices.iter().map(|byte| value(byte & 0xf)));
    out.extend(indices.iter().map(|byte| value(byte >> 4)));
}

fn iq4_xs(block: &[u8], out: &mut Vec<f32>) {
    let scale = float(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (group, indices) in block[8..].chunks_exact(16).enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 0xf;
        let factor = u16::from(low) | (high >> (group * 2) & 3) << 4;
        iq4(scale * (f32::from(factor) - 32.0), indices, out);
    }
}
