//! Arrays out of nothing.

use crate::{
    array::{Array, dims},
    dtype::Dtype,
    error::Result,
};

impl Array {
    /// Every element is `value`.
    ///
    /// # Errors
    /// What MLX says.
    pub fn full(shape: &[usize], value: f32, dtype: Dtype) -> Result<Self> {
        let op = "full";
        let (shape, value) = (dims(op, shape)?, Self::scalar(value)?);
        // SAFETY: a live array; the shape is copied.
        Self::build(op, |out| unsafe {
            mlx_sys::smlx_full(shape.as_ptr(), shape.len(), value.as_ptr(), dtype.code(), out)
        })
    }

    /// Every element is 0.
    ///
    /// # Errors
    /// What MLX says.
    pub fn zeros(shape: &[usize], dtype: Dtype) -> Result<Self> {
        Self::full(shape, 0.0, dtype)
    }

    /// Every element is 1.
    ///
    /// # Errors
    /// What MLX says.
    pub fn ones(shape: &[usize], dtype: Dtype) -> Result<Self> {
        Self::full(shape, 1.0, dtype)
    }

    /// `start`, `start + step`, ... below `stop`.
    ///
    /// # Errors
    /// What MLX says.
    pub fn arange(start: f64, stop: f64, step: f64, dtype: Dtype) -> Result<Self> {
        // SAFETY: plain values.
        Self::build("arange", |out| unsafe {
            mlx_sys::smlx_arange(start, stop, step, dtype.code(), out)
        })
    }

    /// Ones at and below the `k`-th diagonal of an `[n, m]` matrix.
    ///
    /// # Errors
    /// What MLX says.
    pub fn tri(n: usize, m: usize, k: i32, dtype: Dtype) -> Result<Self> {
        // SAFETY: plain values.
        Self::build("tri", |out| unsafe {
            mlx_sys::smlx_tri(n as i32, m as i32, k, dtype.code(), out)
        })
    }
}
