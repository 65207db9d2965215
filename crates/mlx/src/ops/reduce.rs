//! Along axes: sums and their like, scans, orders. Negative axes count from
//! the end.

use mlx_sys::{
    mlxs_argmax, mlxs_argmin, mlxs_argpartition, mlxs_argsort, mlxs_cumsum, mlxs_partition,
    mlxs_softmax, mlxs_sort, mlxs_topk,
};

use super::fold;
use crate::{
    Array, Result,
    handle::{give, int},
};

fold! {
    /// The sum over `axes`.
    sum => mlxs_sum;
    /// The product over `axes`.
    prod => mlxs_prod;
    /// The largest over `axes`.
    max => mlxs_max;
    /// The smallest over `axes`.
    min => mlxs_min;
    /// The mean over `axes`, in floats.
    mean => mlxs_mean;
    /// `log(sum(e^x))` over `axes`.
    logsumexp => mlxs_logsumexp;
    /// True if all over `axes` are non-zero.
    all => mlxs_all;
    /// True if any over `axes` is non-zero.
    any => mlxs_any;
}

impl Array {
    /// The place of the largest along `axis`, uint32; the first of equals.
    ///
    /// # Errors
    /// There is no such axis, or nothing along it.
    pub fn argmax(&self, axis: i32, keep_dims: bool) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("argmax", |out| unsafe { mlxs_argmax(out, self.as_raw(), axis, keep_dims) })
    }

    /// The place of the smallest along `axis`, uint32; the first of equals.
    ///
    /// # Errors
    /// There is no such axis, or nothing along it.
    pub fn argmin(&self, axis: i32, keep_dims: bool) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("argmin", |out| unsafe { mlxs_argmin(out, self.as_raw(), axis, keep_dims) })
    }

    /// Running sums along `axis`, from its end if `reverse`, with the element's
    /// own value if `inclusive`.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn cumsum(&self, axis: i32, reverse: bool, inclusive: bool) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("cumsum", |out| unsafe { mlxs_cumsum(out, self.as_raw(), axis, reverse, inclusive) })
    }

    /// Softmax along `axis`; `precise` computes 16-bit floats in f32.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn softmax(&self, axis: i32, precise: bool) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("softmax", |out| unsafe { mlxs_softmax(out, self.as_raw(), axis, precise) })
    }

    /// Ascending along `axis`.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn sort(&self, axis: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("sort", |out| unsafe { mlxs_sort(out, self.as_raw(), axis) })
    }

    /// The places, uint32, that sort ascending along `axis`.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn argsort(&self, axis: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("argsort", |out| unsafe { mlxs_argsort(out, self.as_raw(), axis) })
    }

    /// Reorders along `axis` so that the `kth` is in its sorted place, smaller
    /// ones before it.
    ///
    /// # Errors
    /// There is no such axis or place.
    pub fn partition(&self, kth: i32, axis: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("partition", |out| unsafe { mlxs_partition(out, self.as_raw(), kth, axis) })
    }

    /// The places, uint32, that [`Array::partition`] would put elements in.
    ///
    /// # Errors
    /// There is no such axis or place.
    pub fn argpartition(&self, kth: i32, axis: i32) -> Result<Self> {
        // SAFETY: the array is alive and `out` is writable.
        give("argpartition", |out| unsafe { mlxs_argpartition(out, self.as_raw(), kth, axis) })
    }

    /// The `k` largest along `axis`, in no particular order.
    ///
    /// # Errors
    /// There is no such axis, or it has fewer elements.
    pub fn topk(&self, k: usize, axis: i32) -> Result<Self> {
        const OP: &str = "topk";
        let k = int(OP, k)?;
        // SAFETY: the array is alive and `out` is writable.
        give(OP, |out| unsafe { mlxs_topk(out, self.as_raw(), k, axis) })
    }
}
