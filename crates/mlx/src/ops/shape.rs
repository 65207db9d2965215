//! Operations that move elements.

use crate::{
    array::{Array, dims},
    error::{Error, Result},
    transforms::pointers,
};

impl Array {
    /// The elements in another shape.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let shape = dims("reshape", shape)?;
        // SAFETY: a live array; the shape is copied.
        Self::build("reshape", |out| unsafe {
            mlx_sys::smlx_reshape(self.as_ptr(), shape.as_ptr(), shape.len(), out)
        })
    }

    /// One dimension.
    ///
    /// # Errors
    /// What MLX says.
    pub fn flatten(&self) -> Result<Self> {
        self.reshape(&[self.size()])
    }

    /// Repeats dimensions of size 1.
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        let shape = dims("broadcast_to", shape)?;
        // SAFETY: a live array; the shape is copied.
        Self::build("broadcast_to", |out| unsafe {
            mlx_sys::smlx_broadcast_to(self.as_ptr(), shape.as_ptr(), shape.len(), out)
        })
    }

    /// Dimension `i` of the result is dimension `axes[i]` of this.
    ///
    /// # Errors
    /// If `axes` is not a permutation.
    pub fn transpose(&self, axes: &[i32]) -> Result<Self> {
        // SAFETY: a live array; the axes are copied.
        Self::build("transpose", |out| unsafe {
            mlx_sys::smlx_transpose(self.as_ptr(), axes.as_ptr(), axes.len(), out)
        })
    }

    /// Exchanges two dimensions.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn swapaxes(&self, a: i32, b: i32) -> Result<Self> {
        let ndim = self.ndim() as i32;
        let place = |axis: i32| {
            let index = if axis < 0 { axis + ndim } else { axis };
            let valid = (0..ndim).contains(&index).then_some(index as usize);
            valid.ok_or_else(|| Error::new("swapaxes", format!("no axis {axis} of {ndim}")))
        };
        let mut axes: Vec<i32> = (0..ndim).collect();
        axes.swap(place(a)?, place(b)?);
        self.transpose(&axes)
    }

    /// Adds a dimension of size 1.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn expand_dims(&self, axis: i32) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("expand_dims", |out| unsafe {
            mlx_sys::smlx_expand_dims(self.as_ptr(), axis, out)
        })
    }

    /// Drops a dimension of size 1.
    ///
    /// # Errors
    /// If the size is not 1.
    pub fn squeeze(&self, axis: i32) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("squeeze", |out| unsafe { mlx_sys::smlx_squeeze(self.as_ptr(), axis, out) })
    }

    /// `start..stop` in steps, for every dimension.
    ///
    /// # Errors
    /// If the lengths are not the number of dimensions.
    pub fn slice(&self, start: &[i32], stop: &[i32], strides: &[i32]) -> Result<Self> {
        let op = "slice";
        self.check_rank(op, &[start.len(), stop.len(), strides.len()])?;
        // SAFETY: a live array; each bound has an entry per dimension.
        Self::build(op, |out| unsafe {
            mlx_sys::smlx_slice(
                self.as_ptr(),
                start.as_ptr(),
                stop.as_ptr(),
                strides.as_ptr(),
                start.len(),
                out,
            )
        })
    }

    /// This with `start..stop` replaced.
    ///
    /// # Errors
    /// If the lengths are not the number of dimensions, or shapes do not fit.
    pub fn slice_update(&self, update: &Self, start: &[i32], stop: &[i32]) -> Result<Self> {
        let op = "slice_update";
        self.check_rank(op, &[start.len(), stop.len()])?;
        // SAFETY: live arrays; each bound has an entry per dimension.
        Self::build(op, |out| unsafe {
            mlx_sys::smlx_slice_update(
                self.as_ptr(),
                update.as_ptr(),
                start.as_ptr(),
                stop.as_ptr(),
                start.len(),
                out,
            )
        })
    }

    fn check_rank(&self, op: &'static str, lengths: &[usize]) -> Result<()> {
        if lengths.iter().all(|&length| length == self.ndim()) {
            return Ok(());
        }
        let text = format!("{lengths:?} bounds for {} dimensions", self.ndim());
        Err(Error::new(op, text))
    }

    /// Picks entries of one dimension. Indices are not checked on every device.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn take(&self, indices: &Self, axis: i32) -> Result<Self> {
        // SAFETY: live arrays.
        Self::build("take", |out| unsafe {
            mlx_sys::smlx_take(self.as_ptr(), indices.as_ptr(), axis, out)
        })
    }

    /// Picks an element for each place of `indices`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn take_along_axis(&self, indices: &Self, axis: i32) -> Result<Self> {
        // SAFETY: live arrays.
        Self::build("take_along_axis", |out| unsafe {
            mlx_sys::smlx_take_along_axis(self.as_ptr(), indices.as_ptr(), axis, out)
        })
    }

    /// This with rows `indices` `[n]` of the first dimension replaced by `updates`
    /// `[n, ...]`. Indices are not checked.
    ///
    /// The result takes over this array's buffer, and only the rows are written,
    /// if at evaluation nothing else holds it: neither another handle (so replace
    /// the owner: `pool = pool.put_rows(..)`) nor an operation that still has to
    /// read the old contents. Otherwise the whole array is copied.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn put_rows(&self, indices: &Self, updates: &Self) -> Result<Self> {
        // SAFETY: live arrays.
        Self::build("put_rows", |out| unsafe {
            mlx_sys::smlx_put_rows(self.as_ptr(), indices.as_ptr(), updates.as_ptr(), out)
        })
    }

    /// End to end along `axis`.
    ///
    /// # Errors
    /// If the other dimensions differ, or there are no arrays.
    pub fn concatenate(arrays: &[&Self], axis: i32) -> Result<Self> {
        let items = pointers(arrays);
        // SAFETY: live arrays.
        Self::build("concatenate", |out| unsafe {
            mlx_sys::smlx_concatenate(items.as_ptr(), items.len(), axis, out)
        })
    }

    /// Side by side along a new axis.
    ///
    /// # Errors
    /// If shapes differ, or there are no arrays.
    pub fn stack(arrays: &[&Self], axis: i32) -> Result<Self> {
        let items = pointers(arrays);
        // SAFETY: live arrays.
        Self::build("stack", |out| unsafe {
            mlx_sys::smlx_stack(items.as_ptr(), items.len(), axis, out)
        })
    }

    /// Adds `low[i]` entries before and `high[i]` after dimension `i`.
    ///
    /// # Errors
    /// If the lengths are not the number of dimensions.
    pub fn pad(&self, low: &[usize], high: &[usize], value: f32) -> Result<Self> {
        let op = "pad";
        self.check_rank(op, &[low.len(), high.len()])?;
        let (low, high) = (dims(op, low)?, dims(op, high)?);
        let value = Self::scalar(value)?.astype(self.dtype())?;
        // SAFETY: live arrays; each bound has an entry per dimension.
        Self::build(op, |out| unsafe {
            mlx_sys::smlx_pad(
                self.as_ptr(),
                low.as_ptr(),
                high.as_ptr(),
                low.len(),
                value.as_ptr(),
                out,
            )
        })
    }

    /// Repeats the whole array `reps[i]` times along dimension `i`.
    ///
    /// # Errors
    /// What MLX says.
    pub fn tile(&self, reps: &[usize]) -> Result<Self> {
        let reps = dims("tile", reps)?;
        // SAFETY: a live array; the counts are copied.
        Self::build("tile", |out| unsafe {
            mlx_sys::smlx_tile(self.as_ptr(), reps.as_ptr(), reps.len(), out)
        })
    }

    /// Repeats each entry of `axis`.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn repeat(&self, repeats: usize, axis: i32) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("repeat", |out| unsafe {
            mlx_sys::smlx_repeat(self.as_ptr(), repeats as i32, axis, out)
        })
    }

    /// Moves entries of `axis` by `shift` places, round the end.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn roll(&self, shift: i32, axis: i32) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("roll", |out| unsafe { mlx_sys::smlx_roll(self.as_ptr(), shift, axis, out) })
    }
}
