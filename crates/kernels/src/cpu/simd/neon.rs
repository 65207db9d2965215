//! NEON, which every AArch64 has.

use core::arch::aarch64::*;

use half::{bf16, f16};

use super::{UNIT, Vector, run_at};

impl Vector for float32x4_t {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 5;
    const MAX_DIRECT_ROWS: usize = 8;

    type Unit = [Self; 8];
    /// The scale and the bias.
    type Group = [Self; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn load(data: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(data) }
    }

    #[inline(always)]
    unsafe fn store(self, data: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(data, self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vfmaq_f32(self, a, b) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let pairs = vadd_f32(vget_low_f32(self), vget_high_f32(self));
            vget_lane_f32::<0>(vpadd_f32(pairs, pairs))
        }
    }

    #[inline(always)]
    unsafe fn unit_f32(data: *const f32) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe { std::array::from_fn(|v| vld1q_f32(data.add(4 * v))) }
    }

    #[inline(always)]
    unsafe fn unit_bf16(data: *const bf16) -> Self::Unit {
        // SAFETY: the caller's promise.
        unsafe {
            std::array::from_fn(|v| {
                let bits = vld1_u16(data.add(4 * v).cast());
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(bits)))
            })
        }
    }

    #[inline(always)]
    unsafe fn unit_f16(data: *const f16) -> Self::Unit {
        // SAFETY: the caller's promise; arrays of f16 need no more than its alignment.
        let values = unsafe { data.cast::<[f16; UNIT]>().read() };
        let values = values.map(f16::to_f32);
        // SAFETY: these are UNIT values.
        unsafe { Self::unit_f32(values.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn affine_group<const BITS: usize>(scale: f32, bias: f32) -> Self::Group {
        // SAFETY: the caller's promise.
        unsafe { [vdupq_n_f32(scale), vdupq_n_f32(bias)] }
    }

    #[inline(always)]
    unsafe fn unit_affine<const BITS: usize>(
        data: *const u8,
        [scale, bias]: Self::Group,
    ) -> Self::Unit {
        // SAFETY: the caller's promise; `run_at` stays inside the unit.
        unsafe {
            let steps = [0, 1, 2, 3].map(|lane| -(lane * BITS as i32));
            let steps = vld1q_s32(steps.as_ptr());
            let mask = vdupq_n_u32((1 << BITS) - 1);
            std::array::from_fn(|v| {
                let (byte, shift) = run_at(BITS, 4 * v);
                let word = data.add(byte).cast::<u32>().read_unaligned();
                let shifts = vsubq_s32(steps, vdupq_n_s32(shift as i32));
                let q = vandq_u32(vshlq_u32(vdupq_n_u32(word), shifts), mask);
                vfmaq_f32(bias, scale, vcvtq_f32_u32(q))
            })
        }
    }
}
