//! Products with a dense matrix, whose weights are widened in registers: half
//! the memory traffic for bf16 and f16.

use half::{bf16, f16};

use super::{
    isa::Isa,
    product::{Packed, Unpack, multiply},
    simd::{UNIT, Vector},
    values::{Values, ValuesMut},
};

/// `y = x · wᵀ`, with `x` of `[num_rows, columns]`, `w` of `[rows, columns]` and
/// `y` of `[num_rows, rows]`, summed in f32. A row of `y` is the same, bit by
/// bit, whatever the other rows and the number of threads.
///
/// # Panics
/// Lengths do not fit each other.
pub fn matmul(
    [num_rows, rows, columns]: [usize; 3],
    x: Values<'_>,
    w: Values<'_>,
    y: &mut ValuesMut<'_>,
) {
    matmul_with(Isa::detect(), [num_rows, rows, columns], x, w, y);
}

/// As [`matmul`], with given instructions.
fn matmul_with(
    isa: Isa,
    [num_rows, rows, columns]: [usize; 3],
    x: Values<'_>,
    w: Values<'_>,
    y: &mut ValuesMut<'_>,
) {
    assert_eq!(w.len(), rows * columns, "values of the matrix");
    let packed = |data| Packed { data, rows, columns, groups: None };
    match w {
        Values::F32(w) => {
            multiply::<DenseF32>(isa, num_rows, x, &packed(bytemuck::cast_slice(w)), y);
        }
        Values::Bf16(w) => {
            multiply::<DenseBf16>(isa, num_rows, x, &packed(bytemuck::cast_slice(w)), y);
        }
        Values::F16(w) => {
            multiply::<DenseF16>(isa, num_rows, x, &packed(bytemuck::cast_slice(w)), y);
        }
    }
}

macro_rules! dense {
    ($name:ident, $element:ty, $unit:ident) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Unpack for $name {
            const UNIT_BYTES: usize = UNIT * size_of::<$element>();
            type Group<V: Vector> = ();

            #[inline(always)]
            unsafe fn group<V: Vector>(_scale: *const f32, _bias: *const f32) {}

            #[inline(always)]
            unsafe fn unit<V: Vector>(data: *const u8, (): ()) -> V::Unit {
                // SAFETY: the caller's promise.
                unsafe { V::$unit(data.cast()) }
            }

            #[inline(always)]
            unsafe fn arrange<V: Vector>(unit: V::Unit) -> V::Unit {
                unit
            }
        }
    };
}

dense!(DenseF32, f32, unit_f32);
dense!(DenseBf16, bf16, unit_bf16);
dense!(DenseF16, f16, unit_f16);

#[cfg(test)]
mod tests;
