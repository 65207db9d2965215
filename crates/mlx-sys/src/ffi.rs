//! Declarations, in the order of the files in `shim/`.

use std::{
    ffi::{c_char, c_void},
    marker::{PhantomData, PhantomPinned},
};

mod cuda_graph;
mod kernels;

pub use cuda_graph::*;
pub use kernels::*;

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub struct $name {
            _data: [u8; 0],
            _not_send_nor_sync: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque!(
    /// An `mlx::core::array`.
    RawArray,
    /// Arrays in order.
    RawVec,
    /// Named arrays and texts, in order of names.
    RawMap,
    /// A compiled function and its closure.
    RawCompiled,
    /// A GPU kernel made from source text.
    RawGpuKernel,
    /// Launches as one CUDA graph.
    RawCudaGraph
);

/// Body of a compiled function: pushes results with [`mlxs_vec_push`], or
/// returns 1 after [`mlxs_set_error`]. Must not unwind.
pub type ClosureCall =
    unsafe extern "C" fn(*mut c_void, *const *const RawArray, usize, *mut RawVec) -> i32;
/// Frees the state of a [`ClosureCall`].
pub type ClosureDrop = unsafe extern "C" fn(*mut c_void);

macro_rules! unary {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(pub fn $name(out: *mut *mut RawArray, a: *const RawArray) -> i32;)*
        }
    };
}

macro_rules! binary {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(pub fn $name(
                out: *mut *mut RawArray,
                a: *const RawArray,
                b: *const RawArray,
            ) -> i32;)*
        }
    };
}

macro_rules! reduce {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(pub fn $name(
                out: *mut *mut RawArray,
                a: *const RawArray,
                axes: *const i32,
                num_axes: usize,
                keep_dims: bool,
            ) -> i32;)*
        }
    };
}

// shim/arrays.cpp
unsafe extern "C" {
    pub fn mlxs_last_error(len: *mut usize) -> *const c_char;
    pub fn mlxs_set_error(text: *const c_char, len: usize);
    pub fn mlxs_array_from_bytes(
        out: *mut *mut RawArray,
        data: *const c_void,
        nbytes: usize,
        shape: *const i32,
        ndim: usize,
        dtype: i32,
    ) -> i32;
    pub fn mlxs_array_clone(out: *mut *mut RawArray, a: *const RawArray) -> i32;
    pub fn mlxs_array_free(a: *mut RawArray);
    pub fn mlxs_array_ndim(a: *const RawArray) -> usize;
    pub fn mlxs_array_shape(a: *const RawArray) -> *const i32;
    pub fn mlxs_array_size(a: *const RawArray) -> usize;
    pub fn mlxs_array_dtype(a: *const RawArray) -> i32;
    pub fn mlxs_array_id(a: *const RawArray) -> usize;
    pub fn mlxs_array_is_computed(a: *const RawArray) -> bool;
    pub fn mlxs_array_read(a: *const RawArray, data: *mut c_void, nbytes: usize) -> i32;
    pub fn mlxs_eval(arrays: *const *const RawArray, len: usize) -> i32;
    pub fn mlxs_async_eval(arrays: *const *const RawArray, len: usize) -> i32;
    pub fn mlxs_vec_len(vec: *const RawVec) -> usize;
    pub fn mlxs_vec_get(out: *mut *mut RawArray, vec: *const RawVec, index: usize) -> i32;
    pub fn mlxs_vec_push(vec: *mut RawVec, a: *const RawArray) -> i32;
    pub fn mlxs_vec_free(vec: *mut RawVec);
}

// shim/elementwise.cpp
unary! {
    mlxs_negative
    mlxs_abs
    mlxs_exp
    mlxs_expm1
    mlxs_log
    mlxs_log1p
    mlxs_sqrt
    mlxs_rsqrt
    mlxs_square
    mlxs_reciprocal
    mlxs_sigmoid
    mlxs_tanh
    mlxs_erf
    mlxs_sin
    mlxs_cos
    mlxs_floor
    mlxs_ceil
    mlxs_round
    mlxs_sign
    mlxs_isnan
    mlxs_isinf
    mlxs_isfinite
    mlxs_logical_not
    mlxs_bitwise_invert
    mlxs_stop_gradient
    mlxs_copy
    mlxs_contiguous
}

binary! {
    mlxs_add
    mlxs_subtract
    mlxs_multiply
    mlxs_divide
    mlxs_floor_divide
    mlxs_remainder
    mlxs_power
    mlxs_maximum
    mlxs_minimum
    mlxs_logaddexp
    mlxs_equal
    mlxs_not_equal
    mlxs_less
    mlxs_less_equal
    mlxs_greater
    mlxs_greater_equal
    mlxs_logical_and
    mlxs_logical_or
    mlxs_bitwise_and
    mlxs_bitwise_or
    mlxs_bitwise_xor
    mlxs_left_shift
    mlxs_right_shift
    mlxs_matmul
}

unsafe extern "C" {
    pub fn mlxs_where(
        out: *mut *mut RawArray,
        condition: *const RawArray,
        a: *const RawArray,
        b: *const RawArray,
    ) -> i32;
    pub fn mlxs_addmm(
        out: *mut *mut RawArray,
        c: *const RawArray,
        a: *const RawArray,
        b: *const RawArray,
        alpha: f32,
        beta: f32,
    ) -> i32;
    pub fn mlxs_astype(out: *mut *mut RawArray, a: *const RawArray, dtype: i32) -> i32;
    pub fn mlxs_view(out: *mut *mut RawArray, a: *const RawArray, dtype: i32) -> i32;
}

// shim/reduce.cpp
reduce! {
    mlxs_sum
    mlxs_prod
    mlxs_max
    mlxs_min
    mlxs_mean
    mlxs_logsumexp
    mlxs_all
    mlxs_any
}

unsafe extern "C" {
    pub fn mlxs_argmax(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axis: i32,
        keep_dims: bool,
    ) -> i32;
    pub fn mlxs_argmin(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axis: i32,
        keep_dims: bool,
    ) -> i32;
    pub fn mlxs_sort(out: *mut *mut RawArray, a: *const RawArray, axis: i32) -> i32;
    pub fn mlxs_argsort(out: *mut *mut RawArray, a: *const RawArray, axis: i32) -> i32;
    pub fn mlxs_partition(out: *mut *mut RawArray, a: *const RawArray, k: i32, axis: i32) -> i32;
    pub fn mlxs_argpartition(out: *mut *mut RawArray, a: *const RawArray, k: i32, axis: i32)
    -> i32;
    pub fn mlxs_topk(out: *mut *mut RawArray, a: *const RawArray, k: i32, axis: i32) -> i32;
    pub fn mlxs_cumsum(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axis: i32,
        reverse: bool,
        inclusive: bool,
    ) -> i32;
    pub fn mlxs_softmax(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axis: i32,
        precise: bool,
    ) -> i32;
}

// shim/shape.cpp
unsafe extern "C" {
    pub fn mlxs_full(
        out: *mut *mut RawArray,
        shape: *const i32,
        ndim: usize,
        value: *const RawArray,
        dtype: i32,
    ) -> i32;
    pub fn mlxs_arange(
        out: *mut *mut RawArray,
        start: f64,
        stop: f64,
        step: f64,
        dtype: i32,
    ) -> i32;
    pub fn mlxs_tril(out: *mut *mut RawArray, a: *const RawArray, k: i32) -> i32;
    pub fn mlxs_triu(out: *mut *mut RawArray, a: *const RawArray, k: i32) -> i32;
    pub fn mlxs_reshape(
        out: *mut *mut RawArray,
        a: *const RawArray,
        shape: *const i32,
        ndim: usize,
    ) -> i32;
    pub fn mlxs_broadcast_to(
        out: *mut *mut RawArray,
        a: *const RawArray,
        shape: *const i32,
        ndim: usize,
    ) -> i32;
    pub fn mlxs_transpose(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axes: *const i32,
        num_axes: usize,
    ) -> i32;
    pub fn mlxs_swapaxes(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axis1: i32,
        axis2: i32,
    ) -> i32;
    pub fn mlxs_expand_dims(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axes: *const i32,
        num_axes: usize,
    ) -> i32;
    pub fn mlxs_squeeze(
        out: *mut *mut RawArray,
        a: *const RawArray,
        axes: *const i32,
        num_axes: usize,
    ) -> i32;
    pub fn mlxs_flatten(
        out: *mut *mut RawArray,
        a: *const RawArray,
        start_axis: i32,
        end_axis: i32,
    ) -> i32;
    pub fn mlxs_slice(
        out: *mut *mut RawArray,
        a: *const RawArray,
        start: *const i32,
        stop: *const i32,
        strides: *const i32,
        ndim: usize,
    ) -> i32;
    pub fn mlxs_slice_update(
        out: *mut *mut RawArray,
        a: *const RawArray,
        update: *const RawArray,
        start: *const i32,
        stop: *const i32,
        strides: *const i32,
        ndim: usize,
    ) -> i32;
    pub fn mlxs_take(
        out: *mut *mut RawArray,
        a: *const RawArray,
        indices: *const RawArray,
        axis: i32,
    ) -> i32;
    pub fn mlxs_take_along_axis(
        out: *mut *mut RawArray,
        a: *const RawArray,
        indices: *const RawArray,
        axis: i32,
    ) -> i32;
    pub fn mlxs_put_along_axis(
        out: *mut *mut RawArray,
        a: *const RawArray,
        indices: *const RawArray,
        values: *const RawArray,
        axis: i32,
    ) -> i32;
    pub fn mlxs_scatter_rows(
        out: *mut *mut RawArray,
        a: *const RawArray,
        indices: *const RawArray,
        updates: *const RawArray,
    ) -> i32;
    pub fn mlxs_concatenate(
        out: *mut *mut RawArray,
        arrays: *const *const RawArray,
        len: usize,
        axis: i32,
    ) -> i32;
    pub fn mlxs_stack(
        out: *mut *mut RawArray,
        arrays: *const *const RawArray,
        len: usize,
        axis: i32,
    ) -> i32;
    pub fn mlxs_split(out: *mut *mut RawVec, a: *const RawArray, sections: i32, axis: i32) -> i32;
    pub fn mlxs_split_at(
        out: *mut *mut RawVec,
        a: *const RawArray,
        indices: *const i32,
        len: usize,
        axis: i32,
    ) -> i32;
    pub fn mlxs_pad(
        out: *mut *mut RawArray,
        a: *const RawArray,
        low: *const i32,
        high: *const i32,
        ndim: usize,
        value: *const RawArray,
    ) -> i32;
    pub fn mlxs_tile(
        out: *mut *mut RawArray,
        a: *const RawArray,
        reps: *const i32,
        len: usize,
    ) -> i32;
    pub fn mlxs_repeat(out: *mut *mut RawArray, a: *const RawArray, repeats: i32, axis: i32)
    -> i32;
    pub fn mlxs_roll(out: *mut *mut RawArray, a: *const RawArray, shift: i32, axis: i32) -> i32;
}

// shim/fast.cpp
unsafe extern "C" {
    pub fn mlxs_rms_norm(
        out: *mut *mut RawArray,
        x: *const RawArray,
        weight: *const RawArray,
        eps: f32,
    ) -> i32;
    pub fn mlxs_layer_norm(
        out: *mut *mut RawArray,
        x: *const RawArray,
        weight: *const RawArray,
        bias: *const RawArray,
        eps: f32,
    ) -> i32;
    pub fn mlxs_rope(
        out: *mut *mut RawArray,
        x: *const RawArray,
        dims: i32,
        traditional: bool,
        base: *const f32,
        scale: f32,
        offset: i32,
        offset_array: *const RawArray,
        freqs: *const RawArray,
    ) -> i32;
    pub fn mlxs_sdpa(
        out: *mut *mut RawArray,
        q: *const RawArray,
        k: *const RawArray,
        v: *const RawArray,
        scale: f32,
        causal: bool,
        mask: *const RawArray,
        sinks: *const RawArray,
    ) -> i32;
    pub fn mlxs_random_key(out: *mut *mut RawArray, seed: u64) -> i32;
    pub fn mlxs_random_split(out: *mut *mut RawArray, key: *const RawArray, count: i32) -> i32;
    pub fn mlxs_random_bits(
        out: *mut *mut RawArray,
        shape: *const i32,
        ndim: usize,
        key: *const RawArray,
    ) -> i32;
    pub fn mlxs_random_uniform(
        out: *mut *mut RawArray,
        low: f32,
        high: f32,
        shape: *const i32,
        ndim: usize,
        dtype: i32,
        key: *const RawArray,
    ) -> i32;
    pub fn mlxs_random_normal(
        out: *mut *mut RawArray,
        shape: *const i32,
        ndim: usize,
        dtype: i32,
        key: *const RawArray,
    ) -> i32;
    pub fn mlxs_random_gumbel(
        out: *mut *mut RawArray,
        shape: *const i32,
        ndim: usize,
        dtype: i32,
        key: *const RawArray,
    ) -> i32;
    pub fn mlxs_random_categorical(
        out: *mut *mut RawArray,
        logits: *const RawArray,
        axis: i32,
        key: *const RawArray,
    ) -> i32;
}

// shim/quantized.cpp
unsafe extern "C" {
    pub fn mlxs_quantize(
        out: *mut *mut RawVec,
        w: *const RawArray,
        group_size: i32,
        bits: i32,
        mode: *const c_char,
        mode_len: usize,
    ) -> i32;
    pub fn mlxs_dequantize(
        out: *mut *mut RawArray,
        w: *const RawArray,
        scales: *const RawArray,
        biases: *const RawArray,
        group_size: i32,
        bits: i32,
        mode: *const c_char,
        mode_len: usize,
        dtype: i32,
    ) -> i32;
    pub fn mlxs_quantized_matmul(
        out: *mut *mut RawArray,
        x: *const RawArray,
        w: *const RawArray,
        scales: *const RawArray,
        biases: *const RawArray,
        transpose: bool,
        group_size: i32,
        bits: i32,
        mode: *const c_char,
        mode_len: usize,
    ) -> i32;
    pub fn mlxs_gather_mm(
        out: *mut *mut RawArray,
        a: *const RawArray,
        b: *const RawArray,
        lhs_indices: *const RawArray,
        rhs_indices: *const RawArray,
        sorted_indices: bool,
    ) -> i32;
    pub fn mlxs_gather_qmm(
        out: *mut *mut RawArray,
        x: *const RawArray,
        w: *const RawArray,
        scales: *const RawArray,
        biases: *const RawArray,
        lhs_indices: *const RawArray,
        rhs_indices: *const RawArray,
        transpose: bool,
        group_size: i32,
        bits: i32,
        mode: *const c_char,
        mode_len: usize,
        sorted_indices: bool,
    ) -> i32;
}

// shim/io.cpp
unsafe extern "C" {
    pub fn mlxs_map_len(map: *const RawMap) -> usize;
    pub fn mlxs_map_name(map: *const RawMap, index: usize, len: *mut usize) -> *const c_char;
    pub fn mlxs_map_array(out: *mut *mut RawArray, map: *const RawMap, index: usize) -> i32;
    pub fn mlxs_map_is_list(map: *const RawMap, index: usize) -> bool;
    pub fn mlxs_map_num_strings(map: *const RawMap, index: usize) -> usize;
    pub fn mlxs_map_string(
        map: *const RawMap,
        index: usize,
        which: usize,
        len: *mut usize,
    ) -> *const c_char;
    pub fn mlxs_map_free(map: *mut RawMap);
    pub fn mlxs_load_safetensors(
        arrays: *mut *mut RawMap,
        metadata: *mut *mut RawMap,
        path: *const c_char,
        path_len: usize,
    ) -> i32;
    pub fn mlxs_load_gguf(
        arrays: *mut *mut RawMap,
        metadata: *mut *mut RawMap,
        path: *const c_char,
        path_len: usize,
    ) -> i32;
    pub fn mlxs_save_safetensors(
        path: *const c_char,
        path_len: usize,
        names: *const *const c_char,
        name_lens: *const usize,
        arrays: *const *const RawArray,
        num_arrays: usize,
        texts: *const *const c_char,
        text_lens: *const usize,
        num_pairs: usize,
    ) -> i32;
    pub fn mlxs_device_info(out: *mut *mut RawMap) -> i32;
}

// shim/runtime.cpp
unsafe extern "C" {
    pub fn mlxs_get_active_memory(out: *mut usize) -> i32;
    pub fn mlxs_get_peak_memory(out: *mut usize) -> i32;
    pub fn mlxs_get_cache_memory(out: *mut usize) -> i32;
    pub fn mlxs_get_memory_limit(out: *mut usize) -> i32;
    pub fn mlxs_set_memory_limit(limit: usize, previous: *mut usize) -> i32;
    pub fn mlxs_set_cache_limit(limit: usize, previous: *mut usize) -> i32;
    pub fn mlxs_set_wired_limit(limit: usize, previous: *mut usize) -> i32;
    pub fn mlxs_version() -> *const c_char;
    pub fn mlxs_metal_available() -> bool;
    pub fn mlxs_cuda_available() -> bool;
    pub fn mlxs_set_default_device(gpu: bool) -> i32;
    pub fn mlxs_default_device_is_gpu(out: *mut bool) -> i32;
    pub fn mlxs_synchronize() -> i32;
    pub fn mlxs_reset_peak_memory() -> i32;
    pub fn mlxs_clear_cache() -> i32;
    pub fn mlxs_compile(
        out: *mut *mut RawCompiled,
        call: ClosureCall,
        drop: ClosureDrop,
        state: *mut c_void,
        shapeless: bool,
    ) -> i32;
    pub fn mlxs_compiled_call(
        out: *mut *mut RawVec,
        compiled: *const RawCompiled,
        inputs: *const *const RawArray,
        num_inputs: usize,
    ) -> i32;
    pub fn mlxs_compiled_free(compiled: *mut RawCompiled);
}
