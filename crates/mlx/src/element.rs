//! Rust types that arrays are made of.

use half::{bf16, f16};

use crate::Dtype;

mod sealed {
    pub trait Sealed {}
}

/// A plain Rust value that an array can hold.
pub trait Element: sealed::Sealed + Copy + 'static {
    /// The array element type.
    const DTYPE: Dtype;

    /// The memory of `values`.
    #[doc(hidden)]
    fn as_bytes(values: &[Self]) -> &[u8];

    /// `len` values, whose memory `fill` writes.
    #[doc(hidden)]
    fn read_with<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Vec<Self>, E>;
}

macro_rules! element {
    ($($type:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;

            fn as_bytes(values: &[Self]) -> &[u8] {
                bytemuck::cast_slice(values)
            }

            fn read_with<E>(
                len: usize,
                fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
            ) -> Result<Vec<Self>, E> {
                let mut values = vec![<$type as bytemuck::Zeroable>::zeroed(); len];
                fill(bytemuck::cast_slice_mut(&mut values))?;
                Ok(values)
            }
        }
    )*};
}

element! {
    u8 => Uint8,
    u16 => Uint16,
    u32 => Uint32,
    u64 => Uint64,
    i8 => Int8,
    i16 => Int16,
    i32 => Int32,
    i64 => Int64,
    f16 => Float16,
    bf16 => Bfloat16,
    f32 => Float32,
    f64 => Float64,
}

impl sealed::Sealed for bool {}
impl Element for bool {
    const DTYPE: Dtype = Dtype::Bool;

    fn as_bytes(values: &[Self]) -> &[u8] {
        bytemuck::cast_slice(values)
    }

    // Not every byte is a bool, so they are read as bytes.
    fn read_with<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Vec<Self>, E> {
        Ok(u8::read_with(len, fill)?.into_iter().map(|byte| byte != 0).collect())
    }
}
