//! Named arrays with text metadata, as the shim hands them over.

use std::{
    collections::BTreeMap,
    ffi::{c_char, c_int},
    ptr::NonNull,
    slice,
};

use mlx_sys::smlx_map;

use crate::{
    array::Array,
    error::{Error, Result, check},
};

pub(crate) struct Map(NonNull<smlx_map>);

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the map is ours and not used again.
        unsafe { mlx_sys::smlx_map_free(self.0.as_ptr()) };
    }
}

impl Map {
    /// Runs a shim function that makes a map.
    pub(crate) fn build(
        op: &'static str,
        make: impl FnOnce(*mut *mut smlx_map) -> c_int,
    ) -> Result<Self> {
        let mut out = std::ptr::null_mut();
        check(op, make(&mut out))?;
        NonNull::new(out).map(Self).ok_or_else(|| Error::new(op, "no map came back"))
    }

    pub(crate) fn new(op: &'static str) -> Result<Self> {
        // SAFETY: a valid place for the map.
        Self::build(op, |out| unsafe { mlx_sys::smlx_map_new(out) })
    }

    pub(crate) fn as_ptr(&self) -> *const smlx_map {
        self.0.as_ptr()
    }

    fn len(&self, metadata: bool) -> usize {
        // SAFETY: a live map.
        unsafe { mlx_sys::smlx_map_len(self.as_ptr(), metadata) }
    }

    fn key(&self, metadata: bool, index: usize) -> String {
        // SAFETY: a live map and an index below its length.
        text(|data, len| unsafe {
            mlx_sys::smlx_map_key(self.as_ptr(), metadata, index, data, len);
        })
    }

    /// The arrays in their order, without names.
    pub(crate) fn list(&self, op: &'static str) -> Result<Vec<Array>> {
        (0..self.len(false))
            .map(|index| {
                // SAFETY: a live map; the shim checks the index.
                Array::build(op, |out| unsafe {
                    mlx_sys::smlx_map_array(self.as_ptr(), index, out)
                })
            })
            .collect()
    }

    pub(crate) fn arrays(&self, op: &'static str) -> Result<BTreeMap<String, Array>> {
        let arrays = self.list(op)?.into_iter().enumerate();
        Ok(arrays.map(|(index, array)| (self.key(false, index), array)).collect())
    }

    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        let pair = |index| {
            // SAFETY: a live map and an index below its length.
            let value = text(|data, len| unsafe {
                mlx_sys::smlx_map_text(self.as_ptr(), index, data, len);
            });
            (self.key(true, index), value)
        };
        (0..self.len(true)).map(pair).collect()
    }

    pub(crate) fn push_array(&mut self, op: &'static str, key: &str, value: &Array) -> Result<()> {
        // SAFETY: a live map of ours; key and array are copied.
        check(op, unsafe {
            mlx_sys::smlx_map_push_array(
                self.0.as_ptr(),
                key.as_ptr().cast(),
                key.len(),
                value.as_ptr(),
            )
        })
    }

    pub(crate) fn push_text(&mut self, op: &'static str, key: &str, value: &str) -> Result<()> {
        // SAFETY: a live map of ours; both texts are copied.
        check(op, unsafe {
            mlx_sys::smlx_map_push_text(
                self.0.as_ptr(),
                key.as_ptr().cast(),
                key.len(),
                value.as_ptr().cast(),
                value.len(),
            )
        })
    }
}

/// Copies a text that the shim points to.
fn text(get: impl FnOnce(*mut *const c_char, *mut usize)) -> String {
    let (mut data, mut len) = (std::ptr::null(), 0);
    get(&mut data, &mut len);
    if data.is_null() || len == 0 {
        return String::new();
    }
    // SAFETY: the shim points to `len` bytes that live as long as the map.
    let bytes = unsafe { slice::from_raw_parts(data.cast::<u8>(), len) };
    String::from_utf8_lossy(bytes).into_owned()
}
