//! How a row of K or V lies in the pool: the values of one head of one token.
//!
//! A plain row is `head_dim` elements of a float type. A packed row is bytes, data
//! first, then what its groups of 32 columns share; a last group may be shorter:
//!
//! | type       | data                          | a group shares                   |
//! |------------|-------------------------------|----------------------------------|
//! | `fp8_e4m3` | a byte a column               | nothing: the scale is 1          |
//! | `int8`     | a byte a column, 128 added    | bf16 scale                       |
//! | `int4`     | 4 bits a column, the even one low | bf16 scale, bf16 bias        |
//!
//! Data fills up to whole words of 4 bytes, the row to 8, so that a lane of a GPU reads
//! its 8 columns at once. Values are `code`, `(byte - 128) * scale` and `bits * scale +
//! bias`. What is too large for `fp8_e4m3` becomes its largest number, 448; NaN too.
//!
//! `dialect/kv_row.h` is the same for GPUs.
//!
//! Upstream: `--kv-cache-dtype` of `sglang/srt/server_args.py`; groups of 32 are those of
//! `sglang/srt/layers/quantization/fp4_utils.py` and of MLX's `quantize`.

use std::fmt;

use half::bf16;
use mlx::Dtype;

/// Columns that share a scale.
pub const GROUP: usize = 32;
const LARGEST_FP8: f32 = 448.0;
/// The smallest fp8 number with a leading one, and the distance of those below it.
const LEAST_NORMAL_FP8: f32 = 1.0 / 64.0;
const LEAST_FP8: f32 = 1.0 / 512.0;

/// What the rows of a pool are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// Elements of a float type.
    Plain(Dtype),
    /// Bytes of 4 bits of exponent and 3 of mantissa.
    Fp8E4m3,
    /// Bytes, symmetric about zero.
    Int8,
    /// Half bytes between the least and the greatest of a group.
    Int4,
}

impl From<Dtype> for KvDtype {
    fn from(dtype: Dtype) -> Self {
        Self::Plain(dtype)
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Fp8E4m3 => f.write_str("fp8_e4m3"),
            Self::Int8 => f.write_str("int8"),
            Self::Int4 => f.write_str("int4"),
        }
    }
}

impl KvDtype {
    /// The packed types.
    pub const PACKED: [Self; 3] = [Self::Fp8E4m3, Self::Int8, Self::Int4];

    /// Whether rows are bytes that have to be unpacked.
    pub fn is_packed(self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Element type of the pool's array.
    pub fn array_dtype(self) -> Dtype {
        match self {
            Self::Plain(dtype) => dtype,
            _ => Dtype::Uint8,
        }
    }

    /// Elements of the pool's array in a row of `head_dim` columns.
    pub fn row_len(self, head_dim: usize) -> usize {
        match self {
            Self::Plain(_) => head_dim,
            packed => {
                let shared = packed.shared_bytes() * head_dim.div_ceil(GROUP);
                (packed.data_bytes(head_dim) + shared).next_multiple_of(8)
            }
        }
    }

    /// Bytes of a row of `head_dim` columns.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        self.row_len(head_dim) * self.array_dtype().size_in_bytes()
    }

    /// Columns that a lane of a GPU reads at once.
    pub(crate) fn pack_len(self) -> usize {
        match self {
            Self::Plain(dtype) => 16 / dtype.size_in_bytes(),
            _ => 8,
        }
    }

    fn data_bytes(self, head_dim: usize) -> usize {
        let bytes = if self == Self::Int4 { head_dim.div_ceil(2) } else { head_dim };
        bytes.next_multiple_of(4)
    }

    /// Bytes that a group shares.
    fn shared_bytes(self) -> usize {
        match self {
            Self::Plain(_) | Self::Fp8E4m3 => 0,
            Self::Int8 => 2,
            Self::Int4 => 4,
        }
    }

    /// Packs a row: `row_len(values.len())` bytes.
    ///
    /// # Panics
    /// The type is plain, or `row` has another length.
    pub fn pack(self, values: &[f32], row: &mut [u8]) {
        assert_eq!(row.len(), self.row_len(values.len()), "bytes of a row");
        row.fill(0);
        let (data, shared) = row.split_at_mut(self.data_bytes(values.len()));
        match self {
            Self::Plain(dtype) => panic!("rows of {dtype} are not packed"),
            Self::Fp8E4m3 => {
                data.iter_mut().zip(values).for_each(|(byte, value)| *byte = to_fp8(*value));
            }
            Self::Int8 => {
                let groups = data.chunks_mut(GROUP).zip(values.chunks(GROUP));
                for ((data, values), shared) in groups.zip(shared.chunks_exact_mut(2)) {
                    shared.copy_from_slice(&pack_int8(values, data).to_le_bytes());
                }
            }
            Self::Int4 => {
                let groups = data.chunks_mut(GROUP / 2).zip(values.chunks(GROUP));
                for ((data, values), shared) in groups.zip(shared.chunks_exact_mut(4)) {
                    let [scale, bias] = pack_int4(values, data);
                    shared[..2].copy_from_slice(&scale.to_le_bytes());
                    shared[2..].copy_from_slice(&bias.to_le_bytes());
                }
            }
        }
    }

    /// Unpacks a row of `values.len()` columns.
    ///
    /// # Panics
    /// The type is plain, or `row` has another length.
    #[inline(always)]
    pub fn unpack(self, row: &[u8], values: &mut [f32]) {
        assert_eq!(row.len(), self.row_len(values.len()), "bytes of a row");
        let (data, shared) = row.split_at(self.data_bytes(values.len()));
        match self {
            Self::Plain(dtype) => panic!("rows of {dtype} are not packed"),
            Self::Fp8E4m3 => {
                values.iter_mut().zip(data).for_each(|(value, byte)| *value = of_fp8(*byte));
            }
            Self::Int8 => {
                let groups = values.chunks_mut(GROUP).zip(data.chunks(GROUP));
                for ((values, data), shared) in groups.zip(shared.chunks_exact(2)) {
                    let scale = of_bf16([shared[0], shared[1]]);
                    for (value, byte) in values.iter_mut().zip(data) {
                        *value = (i32::from(*byte) - 128) as f32 * scale;
                    }
                }
            }
            Self::Int4 => {
                let groups = values.chunks_mut(GROUP).zip(data.chunks(GROUP / 2));
                for ((values, data), shared) in groups.zip(shared.chunks_exact(4)) {
                    let scale = of_bf16([shared[0], shared[1]]);
                    let bias = of_bf16([shared[2], shared[3]]);
                    for (values, word) in values.chunks_mut(8).zip(data.chunks_exact(4)) {
                        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                        for (at, value) in values.iter_mut().enumerate() {
                            *value = ((word >> (4 * at)) & 15) as f32 * scale + bias;
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn of_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// To the nearest, ties to even.
fn to_fp8(value: f32) -> u8 {
    let sign = (value.to_bits() >> 24) as u8 & 0x80;
    // NaN is not less either.
    let size = if value.abs() < LARGEST_FP8 { value.abs() } else { LARGEST_FP8 };
    if size < LEAST_NORMAL_FP8 {
        return sign | (size / LEAST_FP8).round_ties_even() as u8;
    }
    let bits = size.to_bits();
    let rounded = (bits + 0x7ffff + ((bits >> 20) & 1)) >> 20;
    // Exponents count from -7, not from -127.
    sign | (rounded - (120 << 3)) as u8
}

#[inline(always)]
fn of_fp8(code: u8) -> f32 {
    let size = u32::from(code & 0x7f);
    let normal = f32::from_bits((size << 20) + (120 << 23));
    let value = if size < 8 { size as f32 * LEAST_FP8 } else { normal };
    f32::from_bits(value.to_bits() | (u32::from(code & 0x80) << 24))
}

/// Gives the scale.
fn pack_int8(values: &[f32], data: &mut [u8]) -> bf16 {
    let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let scale = bf16::from_f32(largest / 127.0);
    let inverse = inverse(scale);
    for (byte, value) in data.iter_mut().zip(values) {
        let steps = (value * inverse).clamp(-127.0, 127.0).round_ties_even();
        *byte = (steps as i32 + 128) as u8;
    }
    scale
}

/// Gives scale and bias.
fn pack_int4(values: &[f32], data: &mut [u8]) -> [bf16; 2] {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (scale, bias) = (bf16::from_f32((greatest - least) / 15.0), bf16::from_f32(least));
    let inverse = inverse(scale);
    let bits =
        |value: f32| ((value - bias.to_f32()) * inverse).clamp(0.0, 15.0).round_ties_even() as u8;
    for (byte, values) in data.iter_mut().zip(values.chunks(2)) {
        *byte = bits(values[0]) | values.get(1).map_or(0, |value| bits(*value) << 4);
    }
    [scale, bias]
}

/// Of a scale; 0 if all of the group is the same, or as good as.
fn inverse(scale: bf16) -> f32 {
    let scale = scale.to_f32();
    if scale < f32::MIN_POSITIVE { 0.0 } else { scale.recip() }
}

#[cfg(test)]
mod tests;
