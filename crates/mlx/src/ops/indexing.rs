//! Parts of arrays: reading them and writing them.
//!
//! MLX does not check indices that are arrays: one that is out of range reads
//! or writes other memory. Callers check them where they are made.

use mlx_sys::{
    mlxs_put_along_axis, mlxs_scatter_rows, mlxs_slice, mlxs_slice_update, mlxs_take,
    mlxs_take_along_axis,
};

use crate::{Array, Error, Result, handle::give};

impl Array {
    /// `self[start..stop; strides]` on each axis. Negative numbers count from
    /// the end.
    ///
    /// # Errors
    /// Not one number per axis.
    pub fn slice(&self, start: &[i32], stop: &[i32], strides: &[i32]) -> Result<Self> {
        const OP: &str = "slice";
        self.check_slice(OP, start, stop, strides)?;
        // SAFETY: the array is alive; each list has one number per axis.
        give(OP, |out| unsafe {
            mlxs_slice(
                out,
                self.as_raw(),
                start.as_ptr(),
                stop.as_ptr(),
                strides.as_ptr(),
                start.len(),
            )
        })
    }

    /// `self` with `self[start..stop; strides]` replaced by `update`, which
    /// broadcasts. In place under the same conditions as [`Array::put_rows`].
    ///
    /// # Errors
    /// Not one number per axis, or `update` does not fit.
    pub fn slice_update(
        &self,
        update: &Self,
        start: &[i32],
        stop: &[i32],
        strides: &[i32],
    ) -> Result<Self> {
        const OP: &str = "slice_update";
        self.check_slice(OP, start, stop, strides)?;
        // SAFETY: both arrays are alive; each list has one number per axis.
        give(OP, |out| unsafe {
            mlxs_slice_update(
                out,
                self.as_raw(),
                update.as_raw(),
                start.as_ptr(),
                stop.as_ptr(),
                strides.as_ptr(),
                start.len(),
            )
        })
    }

    fn check_slice(
        &self,
        op: &'static str,
        start: &[i32],
        stop: &[i32],
        strides: &[i32],
    ) -> Result<()> {
        let ndim = self.ndim();
        if [start.len(), stop.len(), strides.len()] == [ndim; 3] {
            return Ok(());
        }
        Err(Error::new(
            op,
            format!(
                "start, stop and strides have {}, {} and {} numbers for {ndim} axes",
                start.len(),
                stop.len(),
                strides.len()
            ),
        ))
    }

    /// The slices of `self` along `axis` that `indices` names; the axis is
    /// replaced by the axes of `indices`.
    ///
    /// # Errors
    /// There is no such axis, or the indices are no integers. See the module
    /// on their range.
    pub fn take(&self, indices: &Self, axis: i32) -> Result<Self> {
        // SAFETY: both arrays are alive and `out` is writable.
        give("take", |out| unsafe { mlxs_take(out, self.as_raw(), indices.as_raw(), axis) })
    }

    /// For each place of `indices` the element of `self` at the same place,
    /// but with the index along `axis`.
    ///
    /// # Errors
    /// There is no such axis, or the other sizes differ. See the module on
    /// the range of indices.
    pub fn take_along_axis(&self, indices: &Self, axis: i32) -> Result<Self> {
        // SAFETY: both arrays are alive and `out` is writable.
        give("take_along_axis", |out| unsafe {
            mlxs_take_along_axis(out, self.as_raw(), indices.as_raw(), axis)
        })
    }

    /// The inverse of [`Array::take_along_axis`]: `values` at those places.
    ///
    /// # Errors
    /// There is no such axis, or the other sizes differ. See the module on
    /// the range of indices.
    pub fn put_along_axis(&self, indices: &Self, values: &Self, axis: i32) -> Result<Self> {
        // SAFETY: all arrays are alive and `out` is writable.
        give("put_along_axis", |out| unsafe {
            mlxs_put_along_axis(out, self.as_raw(), indices.as_raw(), values.as_raw(), axis)
        })
    }

    /// `self` with rows `indices` (`[num_rows]`) of axis 0 replaced by
    /// `updates` (`[num_rows, ...self.shape[1..]]`), in the dtype of `self`.
    ///
    /// In place if at evaluation nothing else holds the buffer of `self`:
    /// then it is donated to the result, and the cost is that of the rows,
    /// whatever the size of `self`. So replace the owner,
    /// `pool = pool.put_rows(..)?`, before evaluating. What breaks donation
    /// and costs a copy of all of `self`:
    /// - another live handle: a clone, or a view of it such as a slice or a
    ///   reshape that is still held;
    /// - a read of the old values in the same evaluation: have one write per
    ///   evaluation, and read from what it returns;
    /// - a computation on the old buffer that still runs: evaluate the write
    ///   when that is done. Building its graph earlier does no harm;
    /// - a `self` that is not in row-major order, or was broadcast.
    ///
    /// Of equal indices one wins, not always the same one.
    ///
    /// # Errors
    /// The shapes do not fit, or the indices are no integers. See the module
    /// on their range.
    pub fn put_rows(&self, indices: &Self, updates: &Self) -> Result<Self> {
        const OP: &str = "put_rows";
        let (shape, index_shape) = (self.shape(), indices.shape());
        let (Some((_, row)), &[count]) = (shape.split_first(), index_shape.as_slice()) else {
            return Err(Error::new(
                OP,
                format!("rows {index_shape:?} of an array {shape:?}: both need an axis 0"),
            ));
        };
        let update_shape = updates.shape();
        if update_shape.split_first() != Some((&count, row)) {
            return Err(Error::new(
                OP,
                format!("{count} rows of an array {shape:?} cannot be {update_shape:?}"),
            ));
        }
        let updates = updates.astype(self.dtype())?.expand_dims(1)?;
        // SAFETY: all arrays are alive and `out` is writable.
        give(OP, |out| unsafe {
            mlxs_scatter_rows(out, self.as_raw(), indices.as_raw(), updates.as_raw())
        })
    }
}
