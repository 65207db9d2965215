//! [`Array`]: making arrays, asking about them, reading them back.
//!
//! Cloning is cheap and shares the buffer. It also is what decides whether an
//! operation may reuse that buffer: see [`Array::put_rows`].

use std::{fmt, ptr::NonNull};

use mlx_sys::{
    RawArray, mlxs_arange, mlxs_array_clone, mlxs_array_dtype, mlxs_array_free,
    mlxs_array_from_bytes, mlxs_array_id, mlxs_array_is_computed, mlxs_array_ndim, mlxs_array_read,
    mlxs_array_shape, mlxs_array_size, mlxs_full,
};

use crate::{
    Dtype, Element, Error, Result,
    error::check,
    handle::{give, ints},
};

/// A node of MLX's lazy graph, or values that are already there.
///
/// Stays on its thread: lazy arrays can only be evaluated where they were made.
///
/// ```compile_fail
/// let array = mlx::Array::scalar(1.0_f32).unwrap();
/// array.eval().unwrap();
/// std::thread::spawn(move || array.to_vec::<f32>());
/// ```
///
/// ```compile_fail
/// let array = mlx::Array::scalar(1.0_f32).unwrap();
/// std::thread::scope(|scope| {
///     scope.spawn(|| array.ndim());
/// });
/// ```
pub struct Array {
    // A raw pointer keeps the type `!Send` and `!Sync`.
    raw: NonNull<RawArray>,
}

impl Array {
    /// Takes ownership of a handle that the shim made.
    pub(crate) fn from_raw(raw: NonNull<RawArray>) -> Self {
        Self { raw }
    }

    pub(crate) fn as_raw(&self) -> *const RawArray {
        self.raw.as_ptr()
    }

    /// An array of `shape` with a copy of `data`, in row-major order.
    ///
    /// # Errors
    /// `data` has not as many elements as `shape`, or there is no memory.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize]) -> Result<Self> {
        Self::from_bytes(T::as_bytes(data), shape, T::DTYPE)
    }

    /// An array of `shape` with a copy of `data`, the elements in row-major
    /// order and native byte order.
    ///
    /// # Errors
    /// `data` has not as many bytes as `shape` of `dtype`, or there is no memory.
    pub fn from_bytes(data: &[u8], shape: &[usize], dtype: Dtype) -> Result<Self> {
        const OP: &str = "from_bytes";
        let wanted = nbytes_of(OP, shape, dtype)?;
        if data.len() != wanted {
            let found = data.len();
            return Err(Error::new(
                OP,
                format!("{shape:?} of {dtype} has {wanted} bytes, but there are {found}"),
            ));
        }
        let shape = ints(OP, shape)?;
        // SAFETY: pointers and lengths belong together, and MLX copies.
        give(OP, |out| unsafe {
            mlxs_array_from_bytes(
                out,
                data.as_ptr().cast(),
                data.len(),
                shape.as_ptr(),
                shape.len(),
                dtype.code(),
            )
        })
    }

    /// An array without axes.
    ///
    /// An f32 scalar promotes what it is combined with to f32: see
    /// [`Array::mul_scalar`] for one that does not.
    ///
    /// # Errors
    /// There is no memory.
    pub fn scalar<T: Element>(value: T) -> Result<Self> {
        Self::from_slice(&[value], &[])
    }

    /// An array with `value`, rounded to `dtype`, everywhere. Lazy.
    ///
    /// # Errors
    /// A size that MLX cannot count.
    pub fn full(shape: &[usize], value: f32, dtype: Dtype) -> Result<Self> {
        Self::full_like_array("full", shape, &Self::scalar(value)?, dtype)
    }

    /// An array with `value` broadcast to `shape`. Lazy.
    ///
    /// # Errors
    /// `value` does not broadcast to `shape`.
    pub fn full_array(shape: &[usize], value: &Self, dtype: Dtype) -> Result<Self> {
        Self::full_like_array("full_array", shape, value, dtype)
    }

    /// Zeros. Lazy: see [`Array::full`].
    ///
    /// # Errors
    /// A size that MLX cannot count.
    pub fn zeros(shape: &[usize], dtype: Dtype) -> Result<Self> {
        Self::full_like_array("zeros", shape, &Self::scalar(0.0_f32)?, dtype)
    }

    /// Ones. Lazy: see [`Array::full`].
    ///
    /// # Errors
    /// A size that MLX cannot count.
    pub fn ones(shape: &[usize], dtype: Dtype) -> Result<Self> {
        Self::full_like_array("ones", shape, &Self::scalar(1.0_f32)?, dtype)
    }

    fn full_like_array(
        op: &'static str,
        shape: &[usize],
        value: &Self,
        dtype: Dtype,
    ) -> Result<Self> {
        nbytes_of(op, shape, dtype)?;
        let shape = ints(op, shape)?;
        // SAFETY: pointers and lengths belong together; `value` is alive.
        give(op, |out| unsafe {
            mlxs_full(out, shape.as_ptr(), shape.len(), value.as_raw(), dtype.code())
        })
    }

    /// `start, start + step, ...` below `stop`.
    ///
    /// # Errors
    /// More elements than MLX can count, or a step of zero or NaN.
    pub fn arange(start: f64, stop: f64, step: f64, dtype: Dtype) -> Result<Self> {
        // SAFETY: only `out` is a pointer.
        give("arange", |out| unsafe { mlxs_arange(out, start, stop, step, dtype.code()) })
    }

    /// The sizes of all axes.
    pub fn shape(&self) -> Vec<usize> {
        // SAFETY: the handle is alive, and so are its `ndim` sizes.
        let sizes = unsafe {
            let ndim = mlxs_array_ndim(self.as_raw());
            if ndim == 0 {
                return Vec::new();
            }
            std::slice::from_raw_parts(mlxs_array_shape(self.as_raw()), ndim)
        };
        // MLX refuses negative sizes when an array is made.
        sizes.iter().map(|&size| size as usize).collect()
    }

    /// The size of one axis; negative axes count from the end.
    ///
    /// # Panics
    /// There is no such axis, as for a slice's index.
    #[track_caller]
    pub fn dim(&self, axis: i32) -> usize {
        let shape = self.shape();
        let place = if axis < 0 { axis + shape.len() as i32 } else { axis };
        match usize::try_from(place).ok().and_then(|place| shape.get(place)) {
            Some(&size) => size,
            None => panic!("no axis {axis} in shape {shape:?}"),
        }
    }

    /// Number of axes.
    pub fn ndim(&self) -> usize {
        // SAFETY: the handle is alive.
        unsafe { mlxs_array_ndim(self.as_raw()) }
    }

    /// Number of elements.
    pub fn size(&self) -> usize {
        // SAFETY: the handle is alive.
        unsafe { mlxs_array_size(self.as_raw()) }
    }

    /// Bytes of all elements.
    pub fn nbytes(&self) -> usize {
        self.size() * self.dtype().size_in_bytes()
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        // SAFETY: the handle is alive.
        let code = unsafe { mlxs_array_dtype(self.as_raw()) };
        Dtype::from_code(code).expect("the shim knows all dtypes of the pinned MLX")
    }

    /// Tells arrays apart: clones share it, and no other array has it as long as
    /// one of them is alive.
    pub fn id(&self) -> usize {
        // SAFETY: the handle is alive.
        unsafe { mlxs_array_id(self.as_raw()) }
    }

    /// Whether it needs no more work than has been handed to the device.
    pub fn is_computed(&self) -> bool {
        // SAFETY: the handle is alive.
        unsafe { mlxs_array_is_computed(self.as_raw()) }
    }

    /// Computes the array and waits for it.
    ///
    /// # Errors
    /// The computation failed: out of memory, an unreadable file, a kernel.
    pub fn eval(&self) -> Result<()> {
        crate::eval(&[self])
    }

    /// The elements in row-major order. Evaluates and waits.
    ///
    /// # Errors
    /// The array's type is not `T`, or as for [`Array::eval`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.read("to_vec")
    }

    /// The only element. Evaluates and waits: in a decode loop that is a
    /// barrier between host and device.
    ///
    /// # Errors
    /// There is not exactly one element, or as for [`Array::to_vec`].
    pub fn item<T: Element>(&self) -> Result<T> {
        const OP: &str = "item";
        match self.size() {
            1 => Ok(self.read(OP)?[0]),
            size => Err(Error::new(OP, format!("the array has {size} elements, not one"))),
        }
    }

    fn read<T: Element>(&self, op: &'static str) -> Result<Vec<T>> {
        let dtype = self.dtype();
        if dtype != T::DTYPE {
            return Err(Error::new(op, format!("the array is {dtype}, not {}", T::DTYPE)));
        }
        // Before the host's copy is allocated: this is what may fail.
        self.eval().map_err(|error| Error { op, ..error })?;
        T::read_with(self.size(), |bytes| {
            // SAFETY: `bytes` is writable for its whole length.
            let status =
                unsafe { mlxs_array_read(self.as_raw(), bytes.as_mut_ptr().cast(), bytes.len()) };
            check(op, status)
        })
    }
}

/// Bytes of an array.
fn nbytes_of(op: &'static str, shape: &[usize], dtype: Dtype) -> Result<usize> {
    shape
        .iter()
        .try_fold(dtype.size_in_bytes(), |bytes, &size| bytes.checked_mul(size))
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or_else(|| Error::new(op, format!("{shape:?} of {dtype} has too many elements")))
}

impl Clone for Array {
    fn clone(&self) -> Self {
        // SAFETY: the handle is alive.
        give("clone", |out| unsafe { mlxs_array_clone(out, self.as_raw()) })
            .expect("a handle of a few bytes can be allocated")
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's own, freed once.
        unsafe { mlxs_array_free(self.raw.as_ptr()) }
    }
}

/// Shape and type only: showing values would compute them.
impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} {:?})", self.dtype(), self.shape())
    }
}
