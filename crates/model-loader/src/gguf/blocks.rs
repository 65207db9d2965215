//! Quantized GGUF blocks as MLX packs them.
//!
//! All these kinds are affine in groups of 32 elements, so nothing is requantized: only
//! the order of the codes' bits changes, and a fixed offset becomes a bias. Scales and
//! biases that f16 does not hold exactly (those of the K kinds are products, the others
//! may overflow) are f32.
//!
//! Upstream of the layouts: `ggml-quants.c`; of MLX's: `affine_quantize`.

use half::f16;

/// Elements that share a scale.
pub(crate) const GROUP: usize = 32;

/// Kinds of blocks that map onto MLX's affine quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// `d (q - 8)`, 4 bits.
    Q4_0,
    /// `d q + m`, 4 bits.
    Q4_1,
    /// `d (q - 16)`, 5 bits.
    Q5_0,
    /// `d q + m`, 5 bits.
    Q5_1,
    /// `d q`, 8 bits, signed.
    Q8_0,
    /// `d s q - m t`, 4 bits, eight groups with 6-bit `s` and `t`.
    Q4K,
    /// The same with 5 bits.
    Q5K,
}

/// Blocks taken apart.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Words of MLX, as bytes.
    pub(crate) packed: Vec<u8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) biases: Vec<f32>,
}

impl Unpacked {
    /// Whether f16 holds every scale and bias exactly.
    pub(crate) fn fit_f16(&self) -> bool {
        let fits = |value: &f32| f16::from_f32(*value).to_f32() == *value;
        self.scales.iter().all(fits) && self.biases.iter().all(fits)
    }
}

impl BlockKind {
    /// Elements of a block.
    pub(crate) fn elements(self) -> usize {
        match self {
            Self::Q4K | Self::Q5K => 8 * GROUP,
            _ => GROUP,
        }
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 2 + 2 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
        }
    }

    /// Bits per element.
    pub(crate) fn bits(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5K => 5,
            Self::Q8_0 => 8,
        }
    }

    /// Appends blocks to `out`.
    pub(crate) fn unpack(self, bytes: &[u8], out: &mut Unpacked) {
        for block in bytes.chunks_exact(self.block_bytes()) {
            match self {
                Self::Q4K => super_block(&block[..16], None, &block[16..], out),
                Self::Q5K => super_block(&block[..16], Some(&block[16..48]), &block[48..], out),
                _ => self.unpack_one(block, out),
            }
        }
    }

    /// A block that is one group.
    fn unpack_one(self, block: &[u8], out: &mut Unpacked) {
        let scale = float(block, 0);
        let (bias, codes) = match self {
            Self::Q4_0 => (-8.0 * scale, 2),
            Self::Q5_0 => (-16.0 * scale, 2),
            Self::Q8_0 => (-128.0 * scale, 2),
            _ => (float(block, 2), 4),
        };
        out.scales.push(scale);
        out.biases.push(bias);
        let codes = &block[codes..];
        match self.bits() {
            8 => out.packed.extend(codes.iter().map(|byte| byte ^ 0x80)),
            4 => pack::<4>(&halves(codes, 0), &mut out.packed),
            _ => {
                let (high, codes) = codes.split_first_chunk().expect("a block of this kind");
                let high = u32::from_le_bytes(*high);
                pack::<5>(&halves(codes, high), &mut out.packed);
            }
        }
    }
}

/// The f16 at byte `at`.
pub(super) fn float(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// 32 codes: 16 in the low halves of bytes, 16 in the high ones, with a fifth bit from
/// `high`.
fn halves(bytes: &[u8], high: u32) -> [u8; GROUP] {
    std::array::from_fn(|at| {
        let low = bytes[at % 16] >> (at / 16 * 4) & 0xf;
        low | ((high >> at & 1) as u8 * 16)
    })
}

/// MLX's order: one code after the other, from the lowest bit on.
fn pack<const BITS: usize>(codes: &[u8; GROUP], out: &mut Vec<u8>) {
    for eight in codes.as_chunks::<8>().0 {
        let word = eight.iter().rev().fold(0_u64, |word, &code| word << BITS | u64::from(code));
        out.extend_from_slice(&word.to_le_bytes()[..BITS]);
    }
}

/// Eight groups: `head` is `d`, `m` and 6-bit factors of both; two groups share 32 bytes
/// of `codes`, and all of them the bytes of the fifth bits.
fn super_block(head: &[u8], fifth: Option<&[u8]>, codes: &[u8], out: &mut Unpacked) {
    let (scale, min, factors) = (float(head, 0), float(head, 2), &head[4..]);
    for group in 0..8 {
        let (of_scale, of_min) = six_bits(factors, group);
        out.scales.push(scale * f32::from(of_scale));
        out.biases.push(-(min * f32::from(of_min)));
        let bytes = &codes[group / 2 * GROUP..][..GROUP];
        let low = |at: usize| bytes[at] >> (group % 2 * 4) & 0xf;
        match fifth {
            None => pack::<4>(&std::array::from_fn(low), &mut out.packed),
            Some(fifth) => {
                let code = |at: usize| low(at) | ((fifth[at] >> group & 1) * 16);
                pack::<5>(&std::array::from_fn(code), &mut out.packed);
            }
        }
    }
}

/// Factors of scale and minimum of a group, out of 12 bytes for eight groups: those of
/// the last four have their upper bits in the bytes of the first.
fn six_bits(bytes: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (bytes[group] & 63, bytes[group + 4] & 63);
    }
    let low = bytes[group + 4];
    ((low & 0xf) | (bytes[group - 4] >> 6) << 4, (low >> 4) | (bytes[group] >> 6) << 4)
}
