//! Operations along dimensions.

use mlx_sys::{Order, Reduce};

use crate::{array::Array, error::Result};

macro_rules! reduce {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        impl Array {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// If there is no such axis.
            pub fn $name(&self, axes: &[i32], keepdims: bool) -> Result<Self> {
                // SAFETY: a live array; the axes are copied.
                Self::build(stringify!($name), |out| unsafe {
                    mlx_sys::smlx_reduce(
                        Reduce::$op as i32, self.as_ptr(), axes.as_ptr(), axes.len(), keepdims, out,
                    )
                })
            }
        )*}
    };
}

reduce! {
    /// Σ
    sum = Sum;
    /// The largest.
    max = Max;
    /// The smallest.
    min = Min;
    /// The average.
    mean = Mean;
    /// True if any is.
    any = Any;
    /// True if all are.
    all = All;
    /// ln Σ eˣ
    logsumexp = Logsumexp;
    /// Π
    prod = Prod;
}

impl Array {
    /// Place of the largest element, uint32.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn argmax(&self, axis: i32, keepdims: bool) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("argmax", |out| unsafe {
            mlx_sys::smlx_arg_reduce(true, self.as_ptr(), axis, keepdims, out)
        })
    }

    /// Place of the smallest element, uint32.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn argmin(&self, axis: i32, keepdims: bool) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("argmin", |out| unsafe {
            mlx_sys::smlx_arg_reduce(false, self.as_ptr(), axis, keepdims, out)
        })
    }

    /// Running sums; `inclusive` counts the element itself.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn cumsum(&self, axis: i32, reverse: bool, inclusive: bool) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("cumsum", |out| unsafe {
            mlx_sys::smlx_cumsum(self.as_ptr(), axis, reverse, inclusive, out)
        })
    }

    /// eˣ / Σ eˣ; `precise` computes in f32.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn softmax(&self, axis: i32, precise: bool) -> Result<Self> {
        // SAFETY: a live array.
        Self::build("softmax", |out| unsafe {
            mlx_sys::smlx_softmax(self.as_ptr(), axis, precise, out)
        })
    }

    fn order(&self, name: &'static str, what: Order, k: usize, axis: i32) -> Result<Self> {
        // SAFETY: a live array.
        Self::build(name, |out| unsafe {
            mlx_sys::smlx_order(what as i32, self.as_ptr(), k as i32, axis, out)
        })
    }

    /// Ascending.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn sort(&self, axis: i32) -> Result<Self> {
        self.order("sort", Order::Sort, 0, axis)
    }

    /// Places of the elements in ascending order, uint32.
    ///
    /// # Errors
    /// If there is no such axis.
    pub fn argsort(&self, axis: i32) -> Result<Self> {
        self.order("argsort", Order::Argsort, 0, axis)
    }

    /// The `k`-th element is where sorting would put it; smaller ones before it.
    ///
    /// # Errors
    /// If there is no such axis or place.
    pub fn partition(&self, k: usize, axis: i32) -> Result<Self> {
        self.order("partition", Order::Partition, k, axis)
    }

    /// Places of the elements as [`Self::partition`] orders them, uint32.
    ///
    /// # Errors
    /// If there is no such axis or place.
    pub fn argpartition(&self, k: usize, axis: i32) -> Result<Self> {
        self.order("argpartition", Order::Argpartition, k, axis)
    }

    /// The `k` largest, in no order.
    ///
    /// # Errors
    /// If there are fewer, or no such axis.
    pub fn topk(&self, k: usize, axis: i32) -> Result<Self> {
        self.order("topk", Order::Topk, k, axis)
    }
}
