//! Declarations of `shim/cuda_graph.cpp`.

use std::ffi::{c_char, c_void};

use super::{RawArray, RawCudaGraph, RawVec};

/// One argument of a launch: `array`, or else `bytes`, or else a place in the
/// arena.
#[derive(Debug)]
#[repr(C)]
pub struct RawLaunchArg {
    pub array: *const RawArray,
    pub bytes: *const c_void,
    pub size: usize,
    pub offset: usize,
}

/// A launch; `source` is a translation unit with one `extern "C"` kernel.
#[derive(Debug)]
#[repr(C)]
pub struct RawLaunch {
    pub source: *const c_char,
    pub source_len: usize,
    pub name: *const c_char,
    pub name_len: usize,
    pub grid: [u32; 3],
    pub threads: u32,
    pub args: *const RawLaunchArg,
    pub num_args: usize,
}

/// A stretch of the arena.
#[derive(Debug)]
#[repr(C)]
pub struct RawStretch {
    pub offset: usize,
    pub nbytes: usize,
}

unsafe extern "C" {
    pub fn mlxs_cuda_graph_new(
        out: *mut *mut RawCudaGraph,
        launches: *const RawLaunch,
        num_launches: usize,
        arena: *const RawArray,
        inputs: *const RawStretch,
        num_inputs: usize,
        output_offsets: *const usize,
        sizes: *const i32,
        ndims: *const usize,
        codes: *const i32,
        num_outputs: usize,
    ) -> i32;
    pub fn mlxs_cuda_graph_free(graph: *mut RawCudaGraph);
    pub fn mlxs_cuda_graph_run(
        out: *mut *mut RawVec,
        graph: *const RawCudaGraph,
        inputs: *const *const RawArray,
        num_inputs: usize,
    ) -> i32;
}
