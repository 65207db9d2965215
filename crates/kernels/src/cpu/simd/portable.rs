//! Plain code, which the compiler turns into what vectors the target always has.

use half::{bf16, f16};

use super::{UNIT, Vector, run_at};

impl Vector for [f32; 8] {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 2;
    const MAX_DIRECT_ROWS: usize = 2;

    type Unit = [Self; 4];
    type Group = (f32, f32);

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 8]
    }

    #[inline(always)]
    unsafe fn load(data: *const f32) -> Self {
        // SAFETY: the caller's promise; f32 arrays need no more than f32's alignment.
        unsafe { data.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, data: *mut f32) {
        // SAFETY: as above.
        unsafe { data.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // A fused one is a call into libm where the target lacks it.
        std::array::from_fn(|lane| self[lane] + a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    unsafe fn unit_f32(data: *const f32) -> Self::Unit {
        // SAFETY: the caller's promise; f32 arrays need no more than f32's alignment.
        unsafe { data.cast::<Self::Unit>().read() }
    }

    #[inline(always)]
    unsafe fn unit_bf16(data: *const bf16) -> Self::Unit {
        // SAFETY: the caller's promise; alignment as above.
        let values = unsafe { data.cast::<[bf16; UNIT]>().read() };
        std::array::from_fn(|v| std::array::from_fn(|lane| values[v * 8 + lane].to_f32()))
    }

    #[inline(always)]
    unsafe fn unit_f16(data: *const f16) -> Self::Unit {
        // SAFETY: the caller's promise; alignment as above.
        let values = unsafe { data.cast::<[f16; UNIT]>().read() };
        std::array::from_fn(|v| std::array::from_fn(|lane| values[v * 8 + lane].to_f32()))
    }

    #[inline(always)]
    unsafe fn affine_group<const BITS: usize>(scale: f32, bias: f32) -> Self::Group {
        (scale, bias)
    }

    #[inline(always)]
    unsafe fn unit_affine<const BITS: usize>(
        data: *const u8,
        (scale, bias): Self::Group,
    ) -> Self::Unit {
        let mut unit = [[0.0; 8]; 4];
        let mask = (1 << BITS) - 1;
        for run in 0..UNIT / 4 {
            let (byte, shift) = run_at(BITS, 4 * run);
            // SAFETY: the word is inside the unit.
            let word = u32::from_le(unsafe { data.add(byte).cast::<u32>().read_unaligned() });
            for lane in 0..4 {
                let q = (word >> (shift + (lane * BITS) as u32)) & mask;
                unit[run / 2][run % 2 * 4 + lane] = scale * q as f32 + bias;
            }
        }
        unit
    }
}
