//! Quantized GGUF blocks as MLX packs them.
//!
//! A block is 32 elements of a row with an f16 scale `d`. All three kinds are
//! affine with group size 32, so nothing is requantized: only the order of the
//! nibbles changes, and a fixed offset becomes a bias. The biases `-8 d` and
//! `-128 d` are `d` with another exponent, hence exact in f16, unless they
//! overflow: then scales and biases of that tensor are f32.
//!
//! Upstream of the layouts: `ggml-quants.c`; of MLX's: `affine_quantize`.

use half::f16;

/// Elements per block.
pub(crate) const BLOCK: usize = 32;

/// Kinds of blocks that map onto MLX's affine quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// `d (q - 8)`, 4 bits.
    Q4_0,
    /// `d q + m`, 4 bits.
    Q4_1,
    /// `d q`, 8 bits, signed.
    Q8_0,
}

/// Blocks taken apart.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Words of MLX, as bytes.
    pub(crate) packed: Vec<u8>,
    pub(crate) scales: Vec<f16>,
    pub(crate) biases: Vec<f32>,
}

impl Unpacked {
    /// Whether f16 holds every bias exactly.
    pub(crate) fn fit_f16(&self) -> bool {
        self.biases.iter().all(|&bias| f16::from_f32(bias).to_f32() == bias)
    }
}

impl BlockKind {
    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q8_0 => 2 + 32,
        }
    }

    /// Bits per element.
    pub(crate) fn bits(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 => 4,
            Self::Q8_0 => 8,
        }
    }

    /// Appends blocks to `out`.
    pub(crate) fn unpack(self, bytes: &[u8], out: &mut Unpacked) {
        for block in bytes.chunks_exact(self.block_bytes()) {
            let (head, elements) = block.split_at(self.block_bytes() - self.bits() * BLOCK / 8);
            let scale = f16::from_le_bytes([head[0], head[1]]);
            let wide = scale.to_f32();
            out.scales.push(scale);
            out.biases.push(match self {
                Self::Q4_0 => -8.0 * wide,
                Self::Q4_1 => f16::from_le_bytes([head[2], head[3]]).to_f32(),
                Self::Q8_0 => -128.0 * wide,
            });
            match self {
                Self::Q4_0 | Self::Q4_1 => out.packed.extend(nibbles(elements)),
                Self::Q8_0 => out.packed.extend(elements.iter().map(|byte| byte ^ 0x80)),
            }
        }
    }
}

/// A block keeps elements 0..16 in its low nibbles and 16..32 in the high
/// ones; MLX keeps neighbours together, the first one low.
fn nibbles(block: &[u8]) -> impl Iterator<Item = u8> {
    let (pairs, _) = block.as_chunks::<2>();
    let low = pairs.iter().map(|[even, odd]| (even & 0xf) | (odd << 4));
    let high = pairs.iter().map(|[even, odd]| (even >> 4) | (odd & 0xf0));
    low.chain(high)
}
