//! Vectors of f32 under one name, so that a kernel is written once.
//!
//! Everything here is `unsafe`, for it is only sound on a CPU that has the
//! instructions: [`with_vector`] asks which. Nothing may be called but from code
//! that is inlined into one of its branches, or it runs one call per instruction.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use half::{bf16, f16};

use super::isa::Isa;

/// Weights that are unpacked at a time; all group sizes are multiples of it.
pub(crate) const UNIT: usize = 32;

/// A register of f32.
pub(crate) trait Vector: Copy {
    const LANES: usize;
    /// Rows of a product whose sums, in four columns, fit into registers.
    const TILE_ROWS: usize;
    /// The most rows that are multiplied with weights that go from memory into
    /// registers: 2, 4 or 8.
    const MAX_DIRECT_ROWS: usize;

    /// [`UNIT`] values: an array of registers.
    type Unit: Copy + AsRef<[Self]>;

    /// # Safety
    /// The CPU has the instructions, as for all that follow.
    unsafe fn zero() -> Self;
    /// # Safety
    /// `LANES` values can be read.
    unsafe fn load(data: *const f32) -> Self;
    /// # Safety
    /// `LANES` values can be written.
    unsafe fn store(self, data: *mut f32);
    /// Asks for the cache line at `data`, any address, to be at hand soon.
    ///
    /// # Safety
    /// As for [`Vector::zero`].
    #[inline(always)]
    unsafe fn prefetch(_data: *const u8) {}
    /// `a * b + self`, rounded once where the CPU can.
    ///
    /// # Safety
    /// As for [`Vector::zero`].
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// The sum of all lanes, halves added to halves.
    ///
    /// # Safety
    /// As for [`Vector::zero`].
    unsafe fn sum(self) -> f32;
    /// Four sums, each added up as by [`Vector::sum`].
    ///
    /// # Safety
    /// As for [`Vector::zero`].
    #[inline(always)]
    unsafe fn sum4(four: [Self; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { [four[0].sum(), four[1].sum(), four[2].sum(), four[3].sum()] }
    }

    /// # Safety
    /// [`UNIT`] values can be read.
    unsafe fn unit_f32(data: *const f32) -> Self::Unit;
    /// # Safety
    /// [`UNIT`] values can be read.
    unsafe fn unit_bf16(data: *const bf16) -> Self::Unit;
    /// # Safety
    /// [`UNIT`] values can be read.
    unsafe fn unit_f16(data: *const f16) -> Self::Unit;

    /// What [`Vector::unit_affine`] needs to know of a group.
    type Group: Copy;

    /// # Safety
    /// As for [`Vector::zero`].
    unsafe fn affine_group<const BITS: usize>(scale: f32, bias: f32) -> Self::Group;
    /// Unpacks a unit: `scale * q + bias`, in the order of [`Vector::arrange`].
    ///
    /// # Safety
    /// `UNIT * BITS / 8` bytes can be read.
    unsafe fn unit_affine<const BITS: usize>(data: *const u8, group: Self::Group) -> Self::Unit;
    /// Brings a unit into the order in which [`Vector::unit_affine`] unpacks.
    ///
    /// # Safety
    /// As for [`Vector::zero`].
    #[inline(always)]
    unsafe fn arrange<const BITS: usize>(unit: Self::Unit) -> Self::Unit {
        unit
    }
}

/// Code that is generic in the vector.
pub(crate) trait WithVector {
    type Output;

    /// Runs it. To be marked `#[inline(always)]`, with all that it calls.
    ///
    /// # Safety
    /// The CPU has `V`'s instructions.
    unsafe fn run<V: Vector>(self) -> Self::Output;
}

/// Runs code with the vectors of `isa`, which this machine has.
#[inline]
pub(crate) fn with_vector<W: WithVector>(isa: Isa, code: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn avx512<W: WithVector>(code: W) -> W::Output {
        // SAFETY: the CPU has been asked.
        unsafe { code.run::<core::arch::x86_64::__m512>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2<W: WithVector>(code: W) -> W::Output {
        // SAFETY: the CPU has been asked.
        unsafe { code.run::<core::arch::x86_64::__m256>() }
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` other than plain code comes from asking the CPU.
        Isa::Avx512 => unsafe { avx512(code) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2(code) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every AArch64 has NEON.
        Isa::Neon => unsafe { code.run::<core::arch::aarch64::float32x4_t>() },
        // SAFETY: plain code runs everywhere.
        _ => unsafe { code.run::<[f32; 8]>() },
    }
}

/// Where a run of `count` packed weights lies: the byte from which 32 bits can
/// be read inside the unit, and how far to shift them.
pub(crate) const fn run_at(bits: usize, first: usize) -> (usize, u32) {
    let bit = bits * first;
    let last_word = UNIT * bits / 8 - 4;
    let byte = if bit / 8 < last_word { bit / 8 } else { last_word };
    (byte, (bit - 8 * byte) as u32)
}

#[cfg(test)]
mod tests;
