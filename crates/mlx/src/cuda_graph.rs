//! Kernel launches as one CUDA graph: launched as one, at a cost that hardly
//! depends on their number.
//!
//! All they write, but for arrays written in place, is in one buffer, the arena,
//! at places that the caller chose. So a graph has its memory from the start and
//! allocates nothing when it runs, and graphs that run one after the other may share
//! it. Outputs are views of the arena: they hold until a graph of this arena runs
//! again, which whoever runs it must order by an input.

use std::ptr::NonNull;

use mlx_sys::{
    RawCudaGraph, RawLaunch, RawLaunchArg, RawStretch, mlxs_cuda_graph_free, mlxs_cuda_graph_new,
    mlxs_cuda_graph_run,
};

use crate::{
    Array, Dtype, Error, Result,
    error::check,
    handle::{OutputSpec, give_vec, pointers, text},
};

/// An argument of a kernel's function.
#[derive(Debug, Clone)]
pub enum LaunchArg {
    /// Address of a byte of the arena.
    Arena(usize),
    /// Address of an array that is computed already. Kept alive.
    Array(Array),
    /// A value.
    Bytes(Vec<u8>),
}

/// One launch.
#[derive(Debug, Clone)]
pub struct Launch {
    /// A translation unit.
    pub source: String,
    /// Its `extern "C"` kernel.
    pub name: String,
    /// Threadgroups.
    pub groups: [usize; 3],
    /// Threads of a group.
    pub threads: usize,
    /// In the order of the function's parameters.
    pub args: Vec<LaunchArg>,
}

/// A view of the arena that a graph gives.
#[derive(Debug, Clone)]
pub struct GraphOutput {
    /// First byte.
    pub offset: usize,
    /// Shape.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub dtype: Dtype,
}

/// A graph ready to run.
#[derive(Debug)]
pub struct CudaGraph {
    raw: NonNull<RawCudaGraph>,
}

impl CudaGraph {
    /// Compiles the kernels and puts the launches into a graph, one after the
    /// other. `inputs` are the stretches (offset and length in bytes) that inputs
    /// are copied to when it runs; one of no length only orders. The arena is computed,
    /// and large enough for all offsets.
    ///
    /// # Errors
    /// No CUDA here, a kernel that does not compile, or no memory.
    pub fn new(
        launches: &[Launch],
        arena: &Array,
        inputs: &[(usize, usize)],
        outputs: &[GraphOutput],
    ) -> Result<Self> {
        const OP: &str = "cuda_graph";
        let fits = inputs.iter().all(|&(offset, nbytes)| offset + nbytes <= arena.nbytes());
        if !fits || !arena.is_computed() {
            return Err(Error::new(OP, "the arena is too small, or not computed"));
        }
        let args: Vec<Vec<RawLaunchArg>> =
            launches.iter().map(|launch| launch.args.iter().map(raw_arg).collect()).collect();
        let raws: Vec<RawLaunch> =
            launches.iter().zip(&args).map(|(launch, args)| raw_launch(launch, args)).collect();
        let stretches: Vec<RawStretch> =
            inputs.iter().map(|&(offset, nbytes)| RawStretch { offset, nbytes }).collect();
        let offsets: Vec<usize> = outputs.iter().map(|output| output.offset).collect();
        let specs: Vec<(&[usize], Dtype)> =
            outputs.iter().map(|output| (output.shape.as_slice(), output.dtype)).collect();
        let spec = OutputSpec::new(OP, &specs)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: pointers and lengths belong together and outlive the call, which
        // copies what it keeps. What the kernels do to memory is up to their texts,
        // as for every kernel.
        check(OP, unsafe {
            mlxs_cuda_graph_new(
                &raw mut raw,
                raws.as_ptr(),
                raws.len(),
                arena.as_raw(),
                stretches.as_ptr(),
                stretches.len(),
                offsets.as_ptr(),
                spec.sizes.as_ptr(),
                spec.ndims.as_ptr(),
                spec.codes.as_ptr(),
                offsets.len(),
            )
        })?;
        let raw = NonNull::new(raw).ok_or_else(|| Error::new(OP, "no graph"))?;
        Ok(Self { raw })
    }

    /// Adds a node that runs it. `inputs` are row-contiguous and of the lengths
    /// given before.
    ///
    /// # Errors
    /// Another number of inputs.
    pub fn run(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let inputs = pointers(inputs);
        // SAFETY: the graph and all inputs are alive.
        give_vec("cuda_graph", |out| unsafe {
            mlxs_cuda_graph_run(out, self.raw.as_ptr(), inputs.as_ptr(), inputs.len())
        })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { mlxs_cuda_graph_free(self.raw.as_ptr()) }
    }
}

fn raw_arg(arg: &LaunchArg) -> RawLaunchArg {
    let null =
        RawLaunchArg { array: std::ptr::null(), bytes: std::ptr::null(), size: 0, offset: 0 };
    match arg {
        LaunchArg::Arena(offset) => RawLaunchArg { offset: *offset, ..null },
        LaunchArg::Array(array) => RawLaunchArg { array: array.as_raw(), ..null },
        LaunchArg::Bytes(bytes) => {
            RawLaunchArg { bytes: bytes.as_ptr().cast(), size: bytes.len(), ..null }
        }
    }
}

fn raw_launch(launch: &Launch, args: &[RawLaunchArg]) -> RawLaunch {
    let (source, source_len) = text(&launch.source);
    let (name, name_len) = text(&launch.name);
    RawLaunch {
        source,
        source_len,
        name,
        name_len,
        grid: launch.groups.map(|size| size as u32),
        threads: launch.threads as u32,
        args: args.as_ptr(),
        num_args: args.len(),
    }
}
