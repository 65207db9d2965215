//! The C ABI of the shim over MLX's C++ API. Nothing here is safe to call
//! without `mlx`, which knows the rules.
//!
//! Functions that can fail return 0, or non-zero with a message in
//! [`smlx_last_error`] (per thread, valid until the next call).

#[cfg(target_os = "linux")]
pub mod blas;

use std::ffi::{c_char, c_int, c_void};

/// MLX this crate is built for; headers and library must both be it.
pub const PINNED_VERSION: &str = "0.32.4";

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub struct $name { _private: [u8; 0], _not_send: std::marker::PhantomData<*mut u8> }
    )*};
}

opaque! {
    /// `mlx::core::array`.
    smlx_array,
    /// Named arrays with text metadata.
    smlx_map,
    /// A compiled function.
    smlx_function
}

pub type Callback = unsafe extern "C" fn(
    *mut c_void,
    *const *const smlx_array,
    usize,
    *mut *mut *mut smlx_array,
    *mut usize,
) -> c_int;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[repr(i32)]
        #[derive(Clone, Copy)]
        pub enum $name { $($variant),* }
    };
}

codes! {
    /// Order of `unary_table` in `shim/ops.cpp`.
    Unary {
        Negative, Abs, Exp, Log, Log1p, Sqrt, Rsqrt, Square, Reciprocal, Sigmoid, Tanh, Erf, Sin,
        Cos, Floor, LogicalNot, Isnan, Isfinite, StopGradient, Copy, Sign, Round, Contiguous,
    }
}

codes! {
    /// Order of `binary_table` in `shim/ops.cpp`.
    Binary {
        Add, Subtract, Multiply, Divide, Remainder, Power, Maximum, Minimum, Equal, NotEqual,
        Less, LessEqual, Greater, GreaterEqual, LogicalAnd, LogicalOr, BitwiseAnd, BitwiseOr,
        BitwiseXor, LeftShift, RightShift, FloorDivide, Logaddexp, Matmul,
    }
}

codes! {
    /// Order of `reduce_table` in `shim/ops.cpp`.
    Reduce { Sum, Max, Min, Mean, Any, All, Logsumexp, Prod }
}

codes! {
    /// Cases of `smlx_order`.
    Order { Sort, Argsort, Partition, Argpartition, Topk }
}

type Arr = *const smlx_array;
type Out = *mut *mut smlx_array;
type Dims = *const i32;

unsafe extern "C" {
    pub fn smlx_last_error() -> *const c_char;
    pub fn smlx_set_error(message: *const c_char, length: usize);

    pub fn smlx_array_from_bytes(
        data: *const c_void,
        num_bytes: usize,
        dims: Dims,
        ndim: usize,
        dtype: i32,
        out: Out,
    ) -> c_int;
    pub fn smlx_array_copy_handle(a: Arr, out: Out) -> c_int;
    pub fn smlx_array_free(a: *mut smlx_array);
    pub fn smlx_array_ndim(a: Arr) -> usize;
    pub fn smlx_array_shape(a: Arr) -> *const i32;
    pub fn smlx_array_size(a: Arr) -> usize;
    pub fn smlx_array_nbytes(a: Arr) -> usize;
    pub fn smlx_array_dtype(a: Arr, out: *mut i32) -> c_int;
    pub fn smlx_array_read(a: Arr, out: *mut c_void, num_bytes: usize) -> c_int;

    pub fn smlx_unary(op: i32, a: Arr, out: Out) -> c_int;
    pub fn smlx_binary(op: i32, a: Arr, b: Arr, out: Out) -> c_int;
    pub fn smlx_reduce(op: i32, a: Arr, axes: Dims, n: usize, keep: bool, out: Out) -> c_int;
    pub fn smlx_arg_reduce(max: bool, a: Arr, axis: i32, keep: bool, out: Out) -> c_int;
    pub fn smlx_cumsum(a: Arr, axis: i32, reverse: bool, inclusive: bool, out: Out) -> c_int;
    pub fn smlx_softmax(a: Arr, axis: i32, precise: bool, out: Out) -> c_int;
    pub fn smlx_order(what: i32, a: Arr, k: i32, axis: i32, out: Out) -> c_int;
    pub fn smlx_where(condition: Arr, a: Arr, b: Arr, out: Out) -> c_int;
    pub fn smlx_addmm(c: Arr, a: Arr, b: Arr, out: Out) -> c_int;
    pub fn smlx_full(dims: Dims, ndim: usize, value: Arr, dtype: i32, out: Out) -> c_int;
    pub fn smlx_arange(start: f64, stop: f64, step: f64, dtype: i32, out: Out) -> c_int;
    pub fn smlx_tri(n: i32, m: i32, k: i32, dtype: i32, out: Out) -> c_int;
    pub fn smlx_reshape(a: Arr, dims: Dims, ndim: usize, out: Out) -> c_int;
    pub fn smlx_broadcast_to(a: Arr, dims: Dims, ndim: usize, out: Out) -> c_int;
    pub fn smlx_transpose(a: Arr, axes: Dims, n: usize, out: Out) -> c_int;
    pub fn smlx_expand_dims(a: Arr, axis: i32, out: Out) -> c_int;
    pub fn smlx_squeeze(a: Arr, axis: i32, out: Out) -> c_int;
    pub fn smlx_slice(a: Arr, start: Dims, stop: Dims, strides: Dims, n: usize, out: Out) -> c_int;
    pub fn smlx_slice_update(
        a: Arr,
        update: Arr,
        start: Dims,
        stop: Dims,
        ndim: usize,
        out: Out,
    ) -> c_int;
    pub fn smlx_take(a: Arr, indices: Arr, axis: i32, out: Out) -> c_int;
    pub fn smlx_take_along_axis(a: Arr, indices: Arr, axis: i32, out: Out) -> c_int;
    pub fn smlx_put_rows(a: Arr, indices: Arr, updates: Arr, out: Out) -> c_int;
    pub fn smlx_concatenate(items: *const Arr, count: usize, axis: i32, out: Out) -> c_int;
    pub fn smlx_stack(items: *const Arr, count: usize, axis: i32, out: Out) -> c_int;
    pub fn smlx_pad(a: Arr, low: Dims, high: Dims, ndim: usize, value: Arr, out: Out) -> c_int;
    pub fn smlx_tile(a: Arr, reps: Dims, n: usize, out: Out) -> c_int;
    pub fn smlx_repeat(a: Arr, repeats: i32, axis: i32, out: Out) -> c_int;
    pub fn smlx_roll(a: Arr, shift: i32, axis: i32, out: Out) -> c_int;
    pub fn smlx_astype(a: Arr, dtype: i32, out: Out) -> c_int;
    pub fn smlx_view(a: Arr, dtype: i32, out: Out) -> c_int;

    pub fn smlx_rms_norm(x: Arr, weight: Arr, eps: f32, out: Out) -> c_int;
    pub fn smlx_layer_norm(x: Arr, weight: Arr, bias: Arr, eps: f32, out: Out) -> c_int;
    pub fn smlx_rope(
        x: Arr,
        dims: i32,
        traditional: bool,
        has_base: bool,
        base: f32,
        scale: f32,
        offset: i32,
        offsets: Arr,
        freqs: Arr,
        out: Out,
    ) -> c_int;
    pub fn smlx_sdpa(
        q: Arr,
        k: Arr,
        v: Arr,
        scale: f32,
        causal: bool,
        mask: Arr,
        sinks: Arr,
        out: Out,
    ) -> c_int;
    pub fn smlx_quantize(w: Arr, group: i32, bits: i32, mode: *const c_char, out: Out) -> c_int;
    pub fn smlx_dequantize(
        w: Arr,
        scales: Arr,
        biases: Arr,
        group_size: i32,
        bits: i32,
        mode: *const c_char,
        dtype: i32,
        out: Out,
    ) -> c_int;
    pub fn smlx_quantized_matmul(
        x: Arr,
        w: Arr,
        scales: Arr,
        biases: Arr,
        transpose: bool,
        group_size: i32,
        bits: i32,
        mode: *const c_char,
        out: Out,
    ) -> c_int;
    pub fn smlx_gather_qmm(
        x: Arr,
        w: Arr,
        scales: Arr,
        biases: Arr,
        lhs: Arr,
        rhs: Arr,
        transpose: bool,
        group_size: i32,
        bits: i32,
        mode: *const c_char,
        sorted: bool,
        out: Out,
    ) -> c_int;

    pub fn smlx_random_key(seed: u64, out: Out) -> c_int;
    pub fn smlx_random_split(key: Arr, count: i32, out: Out) -> c_int;
    pub fn smlx_random_uniform(
        low: Arr,
        high: Arr,
        dims: Dims,
        ndim: usize,
        dtype: i32,
        key: Arr,
        out: Out,
    ) -> c_int;
    pub fn smlx_random_normal(
        dims: Dims,
        ndim: usize,
        dtype: i32,
        loc: f32,
        scale: f32,
        key: Arr,
        out: Out,
    ) -> c_int;
    pub fn smlx_random_gumbel(dims: Dims, ndim: usize, dtype: i32, key: Arr, out: Out) -> c_int;
    pub fn smlx_random_categorical(logits: Arr, axis: i32, key: Arr, out: Out) -> c_int;
    pub fn smlx_random_bits(dims: Dims, ndim: usize, width: i32, key: Arr, out: Out) -> c_int;

    pub fn smlx_eval(items: *const Arr, count: usize, is_async: bool) -> c_int;
    pub fn smlx_synchronize() -> c_int;
    pub fn smlx_version() -> *const c_char;
    pub fn smlx_compile(
        call: Callback,
        drop: unsafe extern "C" fn(*mut c_void),
        free_outputs: unsafe extern "C" fn(*mut *mut smlx_array, usize),
        payload: *mut c_void,
        shapeless: bool,
        out: *mut *mut smlx_function,
    ) -> c_int;
    pub fn smlx_function_call(
        function: *const smlx_function,
        inputs: *const Arr,
        num_inputs: usize,
        out: *mut *mut smlx_map,
    ) -> c_int;
    pub fn smlx_function_free(function: *mut smlx_function);

    pub fn smlx_map_new(out: *mut *mut smlx_map) -> c_int;
    pub fn smlx_map_free(map: *mut smlx_map);
    pub fn smlx_map_len(map: *const smlx_map, metadata: bool) -> usize;
    pub fn smlx_map_key(
        map: *const smlx_map,
        metadata: bool,
        index: usize,
        data: *mut *const c_char,
        len: *mut usize,
    );
    pub fn smlx_map_array(map: *const smlx_map, index: usize, out: Out) -> c_int;
    pub fn smlx_map_text(
        map: *const smlx_map,
        index: usize,
        data: *mut *const c_char,
        len: *mut usize,
    );
    pub fn smlx_map_push_array(
        map: *mut smlx_map,
        key: *const c_char,
        len: usize,
        value: Arr,
    ) -> c_int;
    pub fn smlx_map_push_text(
        map: *mut smlx_map,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        len: usize,
    ) -> c_int;
    pub fn smlx_load_safetensors(path: *const c_char, len: usize, out: *mut *mut smlx_map)
    -> c_int;
    pub fn smlx_load_gguf(path: *const c_char, len: usize, out: *mut *mut smlx_map) -> c_int;
    pub fn smlx_save_safetensors(path: *const c_char, len: usize, map: *const smlx_map) -> c_int;

    pub fn smlx_memory_get(what: i32, out: *mut usize) -> c_int;
    pub fn smlx_memory_set(what: i32, limit: usize, before: *mut usize) -> c_int;
    pub fn smlx_memory_reset_peak() -> c_int;
    pub fn smlx_memory_clear_cache() -> c_int;
    pub fn smlx_set_default_device(gpu: bool) -> c_int;
    pub fn smlx_default_device_is_gpu(out: *mut bool) -> c_int;
    pub fn smlx_backend_available(metal: bool, out: *mut bool) -> c_int;
    pub fn smlx_gpu_info(out: *mut *mut smlx_map) -> c_int;
}
