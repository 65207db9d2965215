//! Other shapes of the same values; joining and splitting. Negative axes count
//! from the end.

use mlx_sys::{
    mlxs_broadcast_to, mlxs_concatenate, mlxs_expand_dims, mlxs_flatten, mlxs_pad, mlxs_repeat,
    mlxs_reshape, mlxs_roll, mlxs_split, mlxs_split_at, mlxs_squeeze, mlxs_stack, mlxs_swapaxes,
    mlxs_tile, mlxs_transpose, mlxs_tril, mlxs_triu,
};

use crate::{
    Array, Error, Result,
    handle::{give, give_vec, int, ints, pointers},
};

impl Array {
    /// The same elements in another shape.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        const OP: &str = "reshape";
        let shape = ints(OP, shape)?;
        // SAFETY: the array is alive; pointer and length belong together.
        give(OP, |out| unsafe { mlxs_reshape(out, self.as_raw(), shape.as_ptr(), shape.len()) })
    }

    /// The array repeated to `shape`, without a copy.
    ///
    /// # Errors
    /// An axis has another size than 1 or the wanted one.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        const OP: &str = "broadcast_to";
        let shape = ints(OP, shape)?;
        // SAFETY: the array is alive; pointer and length belong together.
        give(OP, |out| unsafe {
            mlxs_broadcast_to(out, self.as_raw(), shape.as_ptr(), shape.len())
        })
    }

    /// Axis `i` of the result is axis `axes[i]` of `self`.
    ///
    /// # Errors
    /// `axes` is no permutation.
    pub fn transpose(&self, axes: &[i32]) -> Result<Self> {
        // SAFETY: the array is alive; pointer and length belong together.
        give("transpose", |out| unsafe {
            mlxs_transpose(out, self.as_raw(), axes.as_ptr(), axes.len())
        })
    }

    /// Two axes exchanged.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn swapaxes(&self, axis1: i32, axis2: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("swapaxes", |out| unsafe { mlxs_swapaxes(out, self.as_raw(), axis1, axis2) })
    }

    /// A new axis of size 1, which is `axis` of the result.
    ///
    /// # Errors
    /// There is no such place.
    pub fn expand_dims(&self, axis: i32) -> Result<Self> {
        // SAFETY: the array is alive; one axis is passed.
        give("expand_dims", |out| unsafe {
            mlxs_expand_dims(out, self.as_raw(), &raw const axis, 1)
        })
    }

    /// Without `axis`, whose size is 1.
    ///
    /// # Errors
    /// There is no such axis, or it has another size.
    pub fn squeeze(&self, axis: i32) -> Result<Self> {
        // SAFETY: the array is alive; one axis is passed.
        give("squeeze", |out| unsafe { mlxs_squeeze(out, self.as_raw(), &raw const axis, 1) })
    }

    /// The axes from `start_axis` to `end_axis`, both included, as one.
    ///
    /// # Errors
    /// There is no such axis, or the first is after the last.
    pub fn flatten(&self, start_axis: i32, end_axis: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("flatten", |out| unsafe { mlxs_flatten(out, self.as_raw(), start_axis, end_axis) })
    }

    /// Arrays in a row along `axis`.
    ///
    /// # Errors
    /// No array, or sizes that differ on another axis.
    pub fn concatenate(arrays: &[&Self], axis: i32) -> Result<Self> {
        let arrays = pointers(arrays);
        // SAFETY: the arrays are alive; pointer and length belong together.
        give("concatenate", |out| unsafe {
            mlxs_concatenate(out, arrays.as_ptr(), arrays.len(), axis)
        })
    }

    /// Arrays of one shape along a new axis.
    ///
    /// # Errors
    /// No array, or shapes that differ.
    pub fn stack(arrays: &[&Self], axis: i32) -> Result<Self> {
        let arrays = pointers(arrays);
        // SAFETY: the arrays are alive; pointer and length belong together.
        give("stack", |out| unsafe { mlxs_stack(out, arrays.as_ptr(), arrays.len(), axis) })
    }

    /// `sections` equal parts along `axis`.
    ///
    /// # Errors
    /// There is no such axis, or it does not divide so.
    pub fn split(&self, sections: usize, axis: i32) -> Result<Vec<Self>> {
        const OP: &str = "split";
        let sections = int(OP, sections)?;
        if sections == 0 {
            return Err(Error::new(OP, "there must be at least one section"));
        }
        // SAFETY: the array is alive and `out` is writable.
        give_vec(OP, |out| unsafe { mlxs_split(out, self.as_raw(), sections, axis) })
    }

    /// Parts along `axis` that start at 0 and at each of `indices`.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn split_at(&self, indices: &[usize], axis: i32) -> Result<Vec<Self>> {
        const OP: &str = "split_at";
        let indices = ints(OP, indices)?;
        // SAFETY: the array is alive; pointer and length belong together.
        give_vec(OP, |out| unsafe {
            mlxs_split_at(out, self.as_raw(), indices.as_ptr(), indices.len(), axis)
        })
    }

    /// Each axis grown by `(before, after)` elements of `value` (a scalar).
    ///
    /// # Errors
    /// Not one pair per axis.
    pub fn pad(&self, widths: &[(usize, usize)], value: &Self) -> Result<Self> {
        const OP: &str = "pad";
        if widths.len() != self.ndim() {
            let (pairs, axes) = (widths.len(), self.ndim());
            return Err(Error::new(OP, format!("{pairs} pairs for {axes} axes")));
        }
        let low = ints(OP, &widths.iter().map(|pair| pair.0).collect::<Vec<_>>())?;
        let high = ints(OP, &widths.iter().map(|pair| pair.1).collect::<Vec<_>>())?;
        // SAFETY: both arrays are alive; both lists are as long as said.
        give(OP, |out| unsafe {
            mlxs_pad(out, self.as_raw(), low.as_ptr(), high.as_ptr(), low.len(), value.as_raw())
        })
    }

    /// The array repeated `reps[i]` times along axis `i`.
    ///
    /// # Errors
    /// A size that MLX cannot count.
    pub fn tile(&self, reps: &[usize]) -> Result<Self> {
        const OP: &str = "tile";
        let reps = ints(OP, reps)?;
        // SAFETY: the array is alive; pointer and length belong together.
        give(OP, |out| unsafe { mlxs_tile(out, self.as_raw(), reps.as_ptr(), reps.len()) })
    }

    /// Each element `repeats` times along `axis`.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn repeat(&self, repeats: usize, axis: i32) -> Result<Self> {
        const OP: &str = "repeat";
        let repeats = int(OP, repeats)?;
        // SAFETY: the array is alive and `out` is writable.
        give(OP, |out| unsafe { mlxs_repeat(out, self.as_raw(), repeats, axis) })
    }

    /// Moved by `shift` along `axis`; what falls off comes in at the other end.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn roll(&self, shift: i32, axis: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("roll", |out| unsafe { mlxs_roll(out, self.as_raw(), shift, axis) })
    }

    /// Zeros above diagonal `k` of the last two axes.
    ///
    /// # Errors
    /// Fewer than two axes.
    pub fn tril(&self, k: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("tril", |out| unsafe { mlxs_tril(out, self.as_raw(), k) })
    }

    /// Zeros below diagonal `k` of the last two axes.
    ///
    /// # Errors
    /// Fewer than two axes.
    pub fn triu(&self, k: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("triu", |out| unsafe { mlxs_triu(out, self.as_raw(), k) })
    }
}
