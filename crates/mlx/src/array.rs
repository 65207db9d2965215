//! [`Array`]: a handle to a lazy or evaluated tensor.

use std::{fmt, ptr::NonNull, slice};

use mlx_sys::smlx_array;

use crate::{
    dtype::{Dtype, Element},
    error::{Error, Result, check},
    transforms,
};

/// An n-dimensional array. Cloning copies the handle, not the data.
///
/// The number of handles matters once: an operation may reuse its input's buffer
/// only if nobody else holds it (see [`Array::put_rows`]).
pub struct Array {
    // A pointer also keeps the type from being `Send` or `Sync`.
    raw: NonNull<smlx_array>,
}

impl Clone for Array {
    fn clone(&self) -> Self {
        // SAFETY: `self.raw` is a live array.
        Self::build("clone", |out| unsafe { mlx_sys::smlx_array_copy_handle(self.as_ptr(), out) })
            .expect("copying a handle allocates a few bytes only")
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and not used again.
        unsafe { mlx_sys::smlx_array_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Array {
    /// Shape and type: the elements may not exist yet.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({:?}, {:?})", self.dtype(), self.shape())
    }
}

impl Array {
    /// Runs a shim function that makes one array.
    pub(crate) fn build(
        op: &'static str,
        make: impl FnOnce(*mut *mut smlx_array) -> std::ffi::c_int,
    ) -> Result<Self> {
        let mut out = std::ptr::null_mut();
        check(op, make(&mut out))?;
        Self::from_raw(out).ok_or_else(|| Error::new(op, "no array came back"))
    }

    /// Takes over a handle made by the shim; `None` if it is null.
    pub(crate) fn from_raw(raw: *mut smlx_array) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw })
    }

    pub(crate) fn as_ptr(&self) -> *const smlx_array {
        self.raw.as_ptr()
    }

    pub(crate) fn into_raw(self) -> *mut smlx_array {
        let raw = self.raw.as_ptr();
        std::mem::forget(self);
        raw
    }

    /// Copies `data`, row-major.
    ///
    /// # Errors
    /// If the shape does not fit the data's length, or memory is out.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize]) -> Result<Self> {
        // SAFETY: elements are plain values without padding.
        let bytes = unsafe { slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) };
        Self::from_bytes(bytes, shape, T::DTYPE)
    }

    /// Copies `data`: row-major elements of `dtype` in this machine's byte order.
    ///
    /// # Errors
    /// If the shape does not fit the data's length, or memory is out.
    pub fn from_bytes(data: &[u8], shape: &[usize], dtype: Dtype) -> Result<Self> {
        let op = "from_bytes";
        let dims = dims(op, shape)?;
        // SAFETY: the shim copies `data.len()` bytes after checking the size.
        Self::build(op, |out| unsafe {
            mlx_sys::smlx_array_from_bytes(
                data.as_ptr().cast(),
                data.len(),
                dims.as_ptr(),
                dims.len(),
                dtype.code(),
                out,
            )
        })
    }

    /// An array without dimensions.
    ///
    /// # Errors
    /// If memory is out.
    pub fn scalar<T: Element>(value: T) -> Result<Self> {
        Self::from_slice(&[value], &[])
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> Vec<usize> {
        self.raw_shape().iter().map(|&dim| dim as usize).collect()
    }

    pub(crate) fn raw_shape(&self) -> &[i32] {
        let ndim = self.ndim();
        if ndim == 0 {
            return &[];
        }
        // SAFETY: the shape of a live array does not change; it has `ndim` entries.
        unsafe { slice::from_raw_parts(mlx_sys::smlx_array_shape(self.as_ptr()), ndim) }
    }

    /// Size of one dimension; negative counts from the end.
    ///
    /// # Panics
    /// If there is no such dimension.
    pub fn dim(&self, axis: i32) -> usize {
        let shape = self.raw_shape();
        let index = if axis < 0 { axis + shape.len() as i32 } else { axis };
        shape[index as usize] as usize
    }

    /// Number of dimensions.
    pub fn ndim(&self) -> usize {
        // SAFETY: a live array.
        unsafe { mlx_sys::smlx_array_ndim(self.as_ptr()) }
    }

    /// Number of elements.
    pub fn size(&self) -> usize {
        // SAFETY: a live array.
        unsafe { mlx_sys::smlx_array_size(self.as_ptr()) }
    }

    /// Bytes of all elements.
    pub fn nbytes(&self) -> usize {
        // SAFETY: a live array.
        unsafe { mlx_sys::smlx_array_nbytes(self.as_ptr()) }
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        let mut code = 0;
        // SAFETY: a live array and a valid place for the code.
        let status = unsafe { mlx_sys::smlx_array_dtype(self.as_ptr(), &mut code) };
        check("dtype", status)
            .ok()
            .and_then(|()| Dtype::from_code(code))
            .expect("the shim knows every dtype of the pinned MLX")
    }

    /// Runs what this array needs and waits for it.
    ///
    /// # Errors
    /// What the operations say.
    pub fn eval(&self) -> Result<()> {
        transforms::eval(&[self])
    }

    /// The elements, row-major. Evaluates.
    ///
    /// # Errors
    /// If `T` is not the array's type, or an operation fails.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let op = "to_vec";
        if self.dtype() != T::DTYPE {
            let text = format!("the array is {:?}, not {:?}", self.dtype(), T::DTYPE);
            return Err(Error::new(op, text));
        }
        let mut out = vec![T::default(); self.size()];
        // SAFETY: `out` has room for every element and the type was checked. MLX
        // stores booleans as 0 and 1.
        let status = unsafe {
            mlx_sys::smlx_array_read(
                self.as_ptr(),
                out.as_mut_ptr().cast(),
                size_of_val(out.as_slice()),
            )
        };
        check(op, status)?;
        Ok(out)
    }

    /// The only element. Evaluates.
    ///
    /// # Errors
    /// If there is not exactly one element of type `T`, or an operation fails.
    pub fn item<T: Element>(&self) -> Result<T> {
        if self.size() != 1 {
            return Err(Error::new("item", format!("the array has {} elements", self.size())));
        }
        Ok(self.to_vec()?[0])
    }
}

/// Dimensions as MLX has them.
pub(crate) fn dims(op: &'static str, shape: &[usize]) -> Result<Vec<i32>> {
    let convert = |&dim| i32::try_from(dim);
    shape
        .iter()
        .map(convert)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Error::new(op, format!("a dimension of {shape:?} is too large")))
}
