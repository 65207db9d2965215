//! Operations, as methods of [`Array`](crate::Array). All are lazy: shapes are
//! checked at once, values when they are evaluated.

mod elementwise;
mod indexing;
mod reduce;
mod shape;

/// Methods of one array.
macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident => $call:ident;)*) => {
        impl crate::Array {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// MLX has no such operation for this dtype.
            pub fn $name(&self) -> crate::Result<Self> {
                // SAFETY: the array is alive and `out` is writable.
                crate::handle::give(stringify!($name), |out| unsafe {
                    mlx_sys::$call(out, self.as_raw())
                })
            }
        )*}
    };
}

/// Methods of two arrays that broadcast against each other.
macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident => $call:ident;)*) => {
        impl crate::Array {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// The shapes or dtypes do not fit.
            pub fn $name(&self, other: &Self) -> crate::Result<Self> {
                // SAFETY: both arrays are alive and `out` is writable.
                crate::handle::give(stringify!($name), |out| unsafe {
                    mlx_sys::$call(out, self.as_raw(), other.as_raw())
                })
            }
        )*}
    };
}

/// Methods that fold axes; an empty list of axes folds none.
macro_rules! fold {
    ($($(#[$doc:meta])* $name:ident => $call:ident;)*) => {
        impl crate::Array {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// There is no such axis, or nothing to fold.
            pub fn $name(&self, axes: &[i32], keep_dims: bool) -> crate::Result<Self> {
                // SAFETY: the array is alive; pointer and length belong together.
                crate::handle::give(stringify!($name), |out| unsafe {
                    mlx_sys::$call(out, self.as_raw(), axes.as_ptr(), axes.len(), keep_dims)
                })
            }
        )*}
    };
}

pub(crate) use {binary, fold, unary};
