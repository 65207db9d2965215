//! Compiled functions: traced once for each set of shapes, then replayed.

use std::{
    ffi::{c_int, c_void},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

use mlx_sys::{smlx_array, smlx_function};

use crate::{
    array::Array,
    error::{Error, Result, check},
    map::Map,
    transforms::pointers,
};

type Body = Box<dyn Fn(&[Array]) -> Result<Vec<Array>>>;

/// A function that MLX traces on its first call with new shapes.
pub struct Compiled {
    raw: NonNull<smlx_function>,
    // Holds a closure that need not be `Send`.
    _not_send: PhantomData<*mut ()>,
}

/// Wraps `body`. It runs while tracing only, so it must not depend on anything
/// but its inputs and must not evaluate them.
///
/// # Errors
/// What MLX says.
pub fn compile(
    body: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    shapeless: bool,
) -> Result<Compiled> {
    let op = "compile";
    let body: Box<Body> = Box::new(Box::new(body));
    let payload = Box::into_raw(body).cast::<c_void>();
    let mut out = std::ptr::null_mut();
    // SAFETY: `call` and `drop_body` know the payload; the shim drops it once,
    // also when this fails.
    check(op, unsafe {
        mlx_sys::smlx_compile(call, drop_body, free_outputs, payload, shapeless, &mut out)
    })?;
    let raw = NonNull::new(out).ok_or_else(|| Error::new(op, "no function came back"))?;
    Ok(Compiled { raw, _not_send: PhantomData })
}

impl Compiled {
    /// Applies the function; the results are lazy.
    ///
    /// # Errors
    /// What the closure returned, its panic's message, or what MLX says.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let op = "compiled function";
        let inputs = pointers(&inputs.iter().collect::<Vec<_>>());
        // SAFETY: a live function and live arrays.
        let map = Map::build(op, |out| unsafe {
            mlx_sys::smlx_function_call(self.raw.as_ptr(), inputs.as_ptr(), inputs.len(), out)
        })?;
        map.list(op)
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: the function is ours and not used again.
        unsafe { mlx_sys::smlx_function_free(self.raw.as_ptr()) };
    }
}

/// Runs the closure for the shim. Neither an error nor a panic crosses into C++.
unsafe extern "C" fn call(
    payload: *mut c_void,
    inputs: *const *const smlx_array,
    num_inputs: usize,
    outputs: *mut *mut *mut smlx_array,
    num_outputs: *mut usize,
) -> c_int {
    let run = || -> Result<Vec<Array>> {
        // SAFETY: the payload is the box that `compile` made; it is still alive.
        let body = unsafe { &*payload.cast::<Body>() };
        let inputs = (0..num_inputs)
            .map(|index| {
                // SAFETY: the shim passes `num_inputs` live arrays.
                let input = unsafe { *inputs.add(index) };
                // SAFETY: as above; the handle is copied.
                Array::build("compile", |out| unsafe {
                    mlx_sys::smlx_array_copy_handle(input, out)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        body(&inputs)
    };
    let message = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(arrays)) => {
            let raw: Box<[_]> = arrays.into_iter().map(Array::into_raw).collect();
            // SAFETY: valid places for pointer and count; `free_outputs` takes
            // the slice back.
            unsafe {
                *num_outputs = raw.len();
                *outputs = Box::into_raw(raw).cast();
            }
            return 0;
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("the closure panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
        }
    };
    // SAFETY: the message is copied.
    unsafe { mlx_sys::smlx_set_error(message.as_ptr().cast(), message.len()) };
    1
}

unsafe extern "C" fn free_outputs(outputs: *mut *mut smlx_array, num_outputs: usize) {
    // SAFETY: the slice that `call` gave away, taken back once.
    let outputs =
        unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(outputs, num_outputs)) };
    for raw in outputs {
        drop(Array::from_raw(raw));
    }
}

unsafe extern "C" fn drop_body(payload: *mut c_void) {
    // SAFETY: the box that `compile` made, dropped once. A panic in a
    // destructor must not unwind into C++.
    let body = unsafe { Box::from_raw(payload.cast::<Body>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(body)));
}
