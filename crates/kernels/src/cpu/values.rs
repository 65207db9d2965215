//! Numbers of the types that kernels read and write; all compute in f32.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// Numbers that are read.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// float32
    F32(&'a [f32]),
    /// bfloat16
    Bf16(&'a [bf16]),
    /// float16
    F16(&'a [f16]),
}

/// Numbers that are written.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// float32
    F32(&'a mut [f32]),
    /// bfloat16
    Bf16(&'a mut [bf16]),
    /// float16
    F16(&'a mut [f16]),
}

impl Values<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they begin, and the bytes of one.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> (*const u8, usize) {
        match self {
            Self::F32(values) => (values.as_ptr().cast(), size_of::<f32>()),
            Self::Bf16(values) => (values.as_ptr().cast(), size_of::<bf16>()),
            Self::F16(values) => (values.as_ptr().cast(), size_of::<f16>()),
        }
    }

    /// Copies those from `first` on, as many as `to` has room for.
    ///
    /// # Panics
    /// There are fewer.
    #[inline(always)]
    pub(crate) fn widen(&self, first: usize, to: &mut [f32]) {
        let range = first..first + to.len();
        match self {
            Self::F32(values) => to.copy_from_slice(&values[range]),
            Self::Bf16(values) => {
                for (to, value) in to.iter_mut().zip(&values[range]) {
                    *to = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
            }
            Self::F16(values) => values[range].convert_to_f32_slice(to),
        }
    }
}

impl ValuesMut<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For threads that write different parts of it.
    pub(crate) fn shared(&mut self) -> SharedOut {
        match self {
            Self::F32(values) => SharedOut::F32(values.as_mut_ptr()),
            Self::Bf16(values) => SharedOut::Bf16(values.as_mut_ptr()),
            Self::F16(values) => SharedOut::F16(values.as_mut_ptr()),
        }
    }
}

/// Where numbers go, by several threads.
#[derive(Clone, Copy)]
pub(crate) enum SharedOut {
    F32(*mut f32),
    Bf16(*mut bf16),
    F16(*mut f16),
}

// SAFETY: writing through it is unsafe, and the writers see to it that their
// parts are apart.
unsafe impl Sync for SharedOut {}
// SAFETY: as above.
unsafe impl Send for SharedOut {}

impl SharedOut {
    /// Widens as many numbers from `first` on as `to` has room for.
    ///
    /// # Safety
    /// As for [`SharedOut::write`].
    pub(crate) unsafe fn read(self, first: usize, to: &mut [f32]) {
        let len = to.len();
        // SAFETY: the caller's promise, in all three.
        unsafe {
            let values = match self {
                Self::F32(data) => Values::F32(std::slice::from_raw_parts(data.add(first), len)),
                Self::Bf16(data) => Values::Bf16(std::slice::from_raw_parts(data.add(first), len)),
                Self::F16(data) => Values::F16(std::slice::from_raw_parts(data.add(first), len)),
            };
            values.widen(0, to);
        }
    }

    /// Writes `values` from `first` on, rounded to nearest.
    ///
    /// # Safety
    /// These places are inside the slice, which is still borrowed, and nobody
    /// else uses them meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(self, first: usize, values: &[f32]) {
        let len = values.len();
        // SAFETY: the caller's promise, in all three.
        unsafe {
            match self {
                Self::F32(data) => {
                    std::ptr::copy_nonoverlapping(values.as_ptr(), data.add(first), len);
                }
                Self::Bf16(data) => {
                    let to = std::slice::from_raw_parts_mut(data.add(first), len);
                    for (to, value) in to.iter_mut().zip(values) {
                        *to = round_to_bf16(*value);
                    }
                }
                Self::F16(data) => {
                    std::slice::from_raw_parts_mut(data.add(first), len)
                        .convert_from_f32_slice(values);
                }
            }
        }
    }
}

/// To the nearest, ties to even; without branches, for vectors.
#[inline(always)]
fn round_to_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet_nan = (bits >> 16) | 0x40;
    bf16::from_bits(if value.is_nan() { quiet_nan } else { rounded } as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_the_library_does() {
        let special = [f32::NAN, -f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, -0.0];
        let ties = (0..1 << 16).map(|bits: u32| f32::from_bits((bits << 16) | 0x8000));
        for value in special.into_iter().chain(ties) {
            assert_eq!(round_to_bf16(value).to_bits(), bf16::from_f32(value).to_bits(), "{value}");
        }
    }
}
