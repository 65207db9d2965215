//! Declarations of `shim/kernels.cpp`.

use std::ffi::{c_char, c_void};

use super::{ClosureDrop, RawArray, RawGpuKernel, RawVec};

/// An operand of a CPU kernel: row-contiguous memory, alive during the call.
#[derive(Debug)]
#[repr(C)]
pub struct RawOperand {
    pub data: *mut c_void,
    pub shape: *const i32,
    pub ndim: usize,
    pub nbytes: usize,
    pub dtype: i32,
}

/// Body of a CPU kernel: state, inputs, outputs. Returns 1 after
/// [`mlxs_set_error`]. Called on MLX's own thread. Must not unwind.
pub type KernelCall =
    unsafe extern "C" fn(*mut c_void, *const RawOperand, usize, *const RawOperand, usize) -> i32;

unsafe extern "C" {
    pub fn mlxs_cpu_kernel(
        out: *mut *mut RawVec,
        call: KernelCall,
        drop: ClosureDrop,
        state: *mut c_void,
        inputs: *const *const RawArray,
        num_inputs: usize,
        sizes: *const i32,
        ndims: *const usize,
        codes: *const i32,
        num_outputs: usize,
    ) -> i32;
    pub fn mlxs_array_elements(a: *const RawArray) -> *const c_void;
    pub fn mlxs_awaits_cpu_kernel(a: *const RawArray) -> bool;
    pub fn mlxs_gpu_kernel_new(
        out: *mut *mut RawGpuKernel,
        cuda: bool,
        name: *const c_char,
        name_len: usize,
        inputs: *const *const c_char,
        input_lens: *const usize,
        num_inputs: usize,
        outputs: *const *const c_char,
        output_lens: *const usize,
        num_outputs: usize,
        source: *const c_char,
        source_len: usize,
        header: *const c_char,
        header_len: usize,
        shared_memory: i32,
    ) -> i32;
    pub fn mlxs_gpu_kernel_free(kernel: *mut RawGpuKernel);
    pub fn mlxs_gpu_kernel_call(
        out: *mut *mut RawVec,
        kernel: *const RawGpuKernel,
        inputs: *const *const RawArray,
        num_inputs: usize,
        sizes: *const i32,
        ndims: *const usize,
        codes: *const i32,
        num_outputs: usize,
        grid: *const i32,
        threadgroup: *const i32,
    ) -> i32;
}
