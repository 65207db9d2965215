//! Owners of the shim's lists and maps, and how calls hand their results over.

use std::{any::Any, ffi::c_char, ptr::NonNull};

use mlx_sys::{
    RawArray, RawMap, RawVec, mlxs_map_array, mlxs_map_free, mlxs_map_is_list, mlxs_map_len,
    mlxs_map_name, mlxs_map_num_strings, mlxs_map_string, mlxs_vec_free, mlxs_vec_get,
    mlxs_vec_len,
};

use crate::{Array, Dtype, Error, Result, error::check};

/// Runs a call of the shim that gives one array.
pub(crate) fn give(
    op: &'static str,
    call: impl FnOnce(*mut *mut RawArray) -> i32,
) -> Result<Array> {
    let mut raw = std::ptr::null_mut();
    check(op, call(&raw mut raw))?;
    let raw = NonNull::new(raw).ok_or_else(|| Error::new(op, "MLX gave no array"))?;
    Ok(Array::from_raw(raw))
}

/// Runs a call of the shim that gives a list of arrays.
pub(crate) fn give_vec(
    op: &'static str,
    call: impl FnOnce(*mut *mut RawVec) -> i32,
) -> Result<Vec<Array>> {
    let mut raw = std::ptr::null_mut();
    check(op, call(&raw mut raw))?;
    let list = List(NonNull::new(raw).ok_or_else(|| Error::new(op, "MLX gave no list"))?);
    // SAFETY: the list is alive until the end of this function.
    let len = unsafe { mlxs_vec_len(list.0.as_ptr()) };
    (0..len)
        // SAFETY: as above, and `out` is writable.
        .map(|index| give(op, |out| unsafe { mlxs_vec_get(out, list.0.as_ptr(), index) }))
        .collect()
}

struct List(NonNull<RawVec>);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mlxs_vec_free(self.0.as_ptr()) }
    }
}

/// Pointers for a call that takes several arrays.
pub(crate) fn pointers(arrays: &[&Array]) -> Vec<*const RawArray> {
    arrays.iter().map(|array| array.as_raw()).collect()
}

/// The pointer of an optional array, null for none.
pub(crate) fn maybe(array: Option<&Array>) -> *const RawArray {
    array.map_or(std::ptr::null(), Array::as_raw)
}

/// MLX counts in `i32`; a larger size is an error rather than a wrapped one.
pub(crate) fn int(op: &'static str, size: usize) -> Result<i32> {
    i32::try_from(size)
        .map_err(|_| Error::new(op, format!("{size} is more than MLX can count ({})", i32::MAX)))
}

pub(crate) fn ints(op: &'static str, sizes: &[usize]) -> Result<Vec<i32>> {
    sizes.iter().map(|&size| int(op, size)).collect()
}

/// A text as the shim takes it: pointer and length, no terminator.
pub(crate) fn text(text: &str) -> (*const c_char, usize) {
    (text.as_ptr().cast(), text.len())
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Shapes and types of a kernel's outputs, as the shim takes them.
pub(crate) struct OutputSpec {
    /// All shapes end to end.
    pub(crate) sizes: Vec<i32>,
    pub(crate) ndims: Vec<usize>,
    pub(crate) codes: Vec<i32>,
}

impl OutputSpec {
    pub(crate) fn new(op: &'static str, outputs: &[(&[usize], Dtype)]) -> Result<Self> {
        let mut spec = Self { sizes: Vec::new(), ndims: Vec::new(), codes: Vec::new() };
        for (shape, dtype) in outputs {
            spec.sizes.extend(ints(op, shape)?);
            spec.ndims.push(shape.len());
            spec.codes.push(dtype.code());
        }
        Ok(spec)
    }
}

/// A map that the shim made.
pub(crate) struct Map(NonNull<RawMap>);

/// Value of a [`Map`]'s entry.
pub(crate) enum Value {
    Array(Array),
    Text(String),
    Texts(Vec<String>),
}

impl Map {
    /// Takes ownership of `raw`.
    pub(crate) fn from_raw(op: &'static str, raw: *mut RawMap) -> Result<Self> {
        NonNull::new(raw).map(Self).ok_or_else(|| Error::new(op, "MLX gave no map"))
    }

    /// All entries, in order of names.
    pub(crate) fn entries(&self, op: &'static str) -> Result<Vec<(String, Value)>> {
        let raw = self.0.as_ptr();
        // SAFETY: the map is alive.
        let len = unsafe { mlxs_map_len(raw) };
        (0..len)
            .map(|index| {
                // SAFETY: the map is alive, `index` is below its length, and
                // the name is copied at once.
                let name = copied(|len| unsafe { mlxs_map_name(raw, index, len) });
                Ok((name, self.value(op, index)?))
            })
            .collect()
    }

    /// `index` must be below the map's length.
    fn value(&self, op: &'static str, index: usize) -> Result<Value> {
        let raw = self.0.as_ptr();
        let mut array = std::ptr::null_mut();
        // SAFETY: the map is alive and `array` is writable.
        check(op, unsafe { mlxs_map_array(&raw mut array, raw, index) })?;
        if let Some(array) = NonNull::new(array) {
            return Ok(Value::Array(Array::from_raw(array)));
        }
        // SAFETY: the map is alive and `index` is below its length.
        let (is_list, count) =
            unsafe { (mlxs_map_is_list(raw, index), mlxs_map_num_strings(raw, index)) };
        let mut texts: Vec<String> = (0..count)
            // SAFETY: as above, `which` is below the number of texts, and the
            // text is copied at once.
            .map(|which| copied(|len| unsafe { mlxs_map_string(raw, index, which, len) }))
            .collect();
        Ok(match (is_list, texts.len()) {
            (false, 1) => Value::Text(texts.remove(0)),
            _ => Value::Texts(texts),
        })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mlxs_map_free(self.0.as_ptr()) }
    }
}

/// Copies a text of the shim. `get` answers a pointer to as many bytes as it
/// writes to its argument, valid until the map is freed.
fn copied(get: impl FnOnce(*mut usize) -> *const c_char) -> String {
    let mut len = 0;
    let text = get(&raw mut len);
    // SAFETY: what `get` promises.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    String::from_utf8_lossy(bytes).into_owned()
}
