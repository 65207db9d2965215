//! Kernels for GPUs from source text: Metal's or CUDA's dialect, compiled by
//! the driver when they first run.
//!
//! MLX caches compiled kernels by name: another text needs another name. The
//! grid counts threads, not threadgroups, in both dialects. Inputs arrive
//! row-contiguous; outputs are always new buffers.

use std::ptr::NonNull;

use mlx_sys::{RawGpuKernel, mlxs_gpu_kernel_call, mlxs_gpu_kernel_free, mlxs_gpu_kernel_new};

use crate::{
    Array, Dtype, Error, Result, device,
    error::check,
    handle::{OutputSpec, give_vec, int, ints, pointers, text},
};

/// The language of a kernel's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuDialect {
    /// Metal Shading Language.
    Metal,
    /// CUDA C++.
    Cuda,
}

impl GpuDialect {
    /// What the GPU of this machine speaks; `None` without one.
    pub fn here() -> Option<Self> {
        match (device::metal_available(), device::cuda_available()) {
            (true, _) => Some(Self::Metal),
            (false, true) => Some(Self::Cuda),
            (false, false) => None,
        }
    }
}

/// Text of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct GpuSource<'a> {
    /// Unique for this text.
    pub name: &'a str,
    /// Names of the inputs in the text.
    pub inputs: &'a [&'a str],
    /// Names of the outputs in the text.
    pub outputs: &'a [&'a str],
    /// The body of the kernel's function.
    pub source: &'a str,
    /// What stands before the function.
    pub header: &'a str,
    /// Bytes of dynamic threadgroup memory; CUDA only.
    pub shared_memory: usize,
}

/// A kernel ready to be called.
#[derive(Debug)]
pub struct GpuKernel {
    raw: NonNull<RawGpuKernel>,
}

impl GpuKernel {
    /// Prepares a kernel. It is compiled when it first runs.
    ///
    /// # Errors
    /// The MLX library has no such backend.
    pub fn new(dialect: GpuDialect, kernel: &GpuSource<'_>) -> Result<Self> {
        const OP: &str = "gpu_kernel";
        let list =
            |names: &[&str]| -> (Vec<_>, Vec<_>) { names.iter().map(|name| text(name)).unzip() };
        let (inputs, input_lens) = list(kernel.inputs);
        let (outputs, output_lens) = list(kernel.outputs);
        let (name, name_len) = text(kernel.name);
        let (source, source_len) = text(kernel.source);
        let (header, header_len) = text(kernel.header);
        let shared_memory = int(OP, kernel.shared_memory)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: pointers and lengths belong together, and MLX copies.
        check(OP, unsafe {
            mlxs_gpu_kernel_new(
                &raw mut raw,
                dialect == GpuDialect::Cuda,
                name,
                name_len,
                inputs.as_ptr(),
                input_lens.as_ptr(),
                inputs.len(),
                outputs.as_ptr(),
                output_lens.as_ptr(),
                outputs.len(),
                source,
                source_len,
                header,
                header_len,
                shared_memory,
            )
        })?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(OP, "MLX gave no kernel"))?;
        Ok(Self { raw })
    }

    /// Adds a node that runs the kernel on `grid` threads in groups of
    /// `threadgroup`.
    ///
    /// # Errors
    /// Other inputs or outputs than the text names, or a size of zero.
    pub fn call(
        &self,
        inputs: &[&Array],
        outputs: &[(&[usize], Dtype)],
        grid: [usize; 3],
        threadgroup: [usize; 3],
    ) -> Result<Vec<Array>> {
        const OP: &str = "gpu_kernel";
        let spec = OutputSpec::new(OP, outputs)?;
        let inputs = pointers(inputs);
        let (grid, threadgroup) = (ints(OP, &grid)?, ints(OP, &threadgroup)?);
        // SAFETY: the kernel and all inputs are alive; pointers and lengths
        // belong together.
        give_vec(OP, |out| unsafe {
            mlxs_gpu_kernel_call(
                out,
                self.raw.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                spec.sizes.as_ptr(),
                spec.ndims.as_ptr(),
                spec.codes.as_ptr(),
                spec.codes.len(),
                grid.as_ptr(),
                threadgroup.as_ptr(),
            )
        })
    }
}

impl Drop for GpuKernel {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mlxs_gpu_kernel_free(self.raw.as_ptr()) }
    }
}
