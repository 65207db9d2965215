//! Compiled functions: traced once per input shape, then replayed fused.
//!
//! On the CPU device MLX compiles by calling a C++ compiler at run time, so
//! compiled functions belong on GPUs. What the closure captures is baked in as
//! it is during the trace.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
};

use mlx_sys::{
    RawArray, RawCompiled, RawVec, mlxs_array_clone, mlxs_compile, mlxs_compiled_call,
    mlxs_compiled_free, mlxs_set_error, mlxs_vec_push,
};

use crate::{
    Array, Error, Result,
    error::check,
    handle::{give, give_vec, panic_text, pointers, text},
};

type Closure = dyn Fn(&[Array]) -> Result<Vec<Array>>;

/// A function made by [`compile`].
#[derive(Debug)]
pub struct Compiled {
    raw: NonNull<RawCompiled>,
}

/// Wraps `f` so that MLX traces it on its first call and fuses its operations.
/// With `shapeless`, later calls with other sizes reuse the trace.
///
/// `f` must not evaluate arrays: during the trace they have no values.
///
/// # Errors
/// There is no memory.
pub fn compile(
    f: impl Fn(&[Array]) -> Result<Vec<Array>> + 'static,
    shapeless: bool,
) -> Result<Compiled> {
    const OP: &str = "compile";
    // Boxed twice: a pointer to a closure is two words, C has room for one.
    let f: Box<Closure> = Box::new(f);
    let state = Box::into_raw(Box::new(f)).cast::<c_void>();
    let mut raw = std::ptr::null_mut();
    // SAFETY: the shim owns `state` from here on, and calls `drop_closure` on
    // it once; both functions expect what `state` is.
    check(OP, unsafe { mlxs_compile(&raw mut raw, call_closure, drop_closure, state, shapeless) })?;
    let raw = NonNull::new(raw).ok_or_else(|| Error::new(OP, "MLX gave no function"))?;
    Ok(Compiled { raw })
}

impl Compiled {
    /// Calls the function. Lazy, as any operation.
    ///
    /// # Errors
    /// What the closure returned or panicked with, or MLX cannot trace it.
    pub fn call(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let inputs = pointers(&inputs.iter().collect::<Vec<_>>());
        // SAFETY: the function and all inputs are alive.
        give_vec("compiled", |out| unsafe {
            mlxs_compiled_call(out, self.raw.as_ptr(), inputs.as_ptr(), inputs.len())
        })
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mlxs_compiled_free(self.raw.as_ptr()) }
    }
}

unsafe extern "C" fn call_closure(
    state: *mut c_void,
    inputs: *const *const RawArray,
    num_inputs: usize,
    outputs: *mut RawVec,
) -> i32 {
    // A panic must not unwind into C++.
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `state` is what `compile` made, alive while it is called.
        let f = unsafe { &*state.cast::<Box<Closure>>() };
        // SAFETY: the shim hands over `num_inputs` live arrays and a live list.
        unsafe { run(f, inputs, num_inputs, outputs) }
    }));
    let message = match result {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("the closure panicked: {}", panic_text(panic.as_ref())),
    };
    let (bytes, len) = text(&message);
    // SAFETY: the shim copies the text.
    unsafe { mlxs_set_error(bytes, len) };
    1
}

/// # Safety
/// `inputs` has `num_inputs` live arrays, and `outputs` is a live list.
unsafe fn run(
    f: &Closure,
    inputs: *const *const RawArray,
    num_inputs: usize,
    outputs: *mut RawVec,
) -> Result<()> {
    let mut arguments = Vec::with_capacity(num_inputs);
    for index in 0..num_inputs {
        // SAFETY: promised by the caller.
        let input = unsafe { *inputs.add(index) };
        // SAFETY: promised by the caller.
        arguments.push(give("compiled", |out| unsafe { mlxs_array_clone(out, input) })?);
    }
    for array in f(&arguments)? {
        // SAFETY: promised by the caller; the list takes a reference of its own.
        check("compiled", unsafe { mlxs_vec_push(outputs, array.as_raw()) })?;
    }
    Ok(())
}

unsafe extern "C" fn drop_closure(state: *mut c_void) {
    // SAFETY: `state` is what `compile` made, dropped once.
    let f = unsafe { Box::from_raw(state.cast::<Box<Closure>>()) };
    // A captured value that panics when dropped must not unwind into C++.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(f)));
}
