//! Products with an affine quantized matrix, read as it is packed.

use super::{
    isa::Isa,
    product::{Groups, Packed, Unpack, multiply},
    simd::{UNIT, Vector},
    values::{Values, ValuesMut},
};

/// Bits that a weight can have.
pub const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
/// Weights that can share a scale and a bias.
pub const GROUP_SIZES: [usize; 3] = [32, 64, 128];

/// A matrix `[rows, columns]` of weights `scale * q + bias`, as MLX packs it.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedMatrix<'a> {
    /// `[rows, columns * bits / 32]`, the first weight in the lowest bits.
    pub weight: &'a [u32],
    /// `[rows, columns / group_size]`
    pub scales: Values<'a>,
    /// `[rows, columns / group_size]`
    pub biases: Values<'a>,
    /// Outputs.
    pub rows: usize,
    /// Inputs, a multiple of the group size.
    pub columns: usize,
    /// One of [`GROUP_SIZES`].
    pub group_size: usize,
    /// One of [`BITS`].
    pub bits: usize,
}

/// `y = x · wᵀ`, with `x` of `[num_rows, columns]` and `y` of `[num_rows, rows]`,
/// summed in f32. A row of `y` is the same, bit by bit, whatever the other rows
/// and the number of threads.
///
/// # Panics
/// Lengths do not fit each other, or no kernel has these bits or this group size.
pub fn quantized_matmul(
    num_rows: usize,
    x: Values<'_>,
    w: &QuantizedMatrix<'_>,
    y: &mut ValuesMut<'_>,
) {
    quantized_matmul_with(Isa::detect(), num_rows, x, w, y);
}

/// As [`quantized_matmul`], with given instructions.
fn quantized_matmul_with(
    isa: Isa,
    num_rows: usize,
    x: Values<'_>,
    w: &QuantizedMatrix<'_>,
    y: &mut ValuesMut<'_>,
) {
    let QuantizedMatrix { rows, columns, group_size, bits, .. } = *w;
    assert!(GROUP_SIZES.contains(&group_size), "groups of {group_size}");
    assert_eq!(columns % group_size, 0, "whole groups");
    assert_eq!(w.weight.len(), rows * columns * bits / 32, "words of the matrix");
    assert_eq!(w.scales.len(), rows * columns / group_size, "scales");
    assert_eq!(w.biases.len(), rows * columns / group_size, "biases");
    let groups = Groups { scales: w.scales, biases: w.biases, units: group_size / UNIT };
    let data = bytemuck::cast_slice(w.weight);
    let packed = Packed { data, rows, columns, groups: Some(groups) };
    match bits {
        2 => multiply::<Affine<2>>(isa, num_rows, x, &packed, y),
        3 => multiply::<Affine<3>>(isa, num_rows, x, &packed, y),
        4 => multiply::<Affine<4>>(isa, num_rows, x, &packed, y),
        5 => multiply::<Affine<5>>(isa, num_rows, x, &packed, y),
        6 => multiply::<Affine<6>>(isa, num_rows, x, &packed, y),
        8 => multiply::<Affine<8>>(isa, num_rows, x, &packed, y),
        _ => panic!("weights of {bits} bits"),
    }
}

#[derive(Clone, Copy)]
struct Affine<const BITS: usize>;

impl<const BITS: usize> Unpack for Affine<BITS> {
    const UNIT_BYTES: usize = UNIT * BITS / 8;
    type Group<V: Vector> = V::Group;

    #[inline(always)]
    unsafe fn group<V: Vector>(scale: *const f32, bias: *const f32) -> V::Group {
        // SAFETY: the caller's promise.
        unsafe { V::affine_group::<BITS>(*scale, *bias) }
    }

    #[inline(always)]
    unsafe fn unit<V: Vector>(data: *const u8, group: V::Group) -> V::Unit {
        // SAFETY: the caller's promise.
        unsafe { V::unit_affine::<BITS>(data, group) }
    }

    #[inline(always)]
    unsafe fn arrange<V: Vector>(unit: V::Unit) -> V::Unit {
        // SAFETY: the caller's promise.
        unsafe { V::arrange::<BITS>(unit) }
    }
}

#[cfg(test)]
mod tests;
