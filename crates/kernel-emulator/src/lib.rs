//! Runs the kernels for GPUs on the CPU, for tests: the same text, each thread of
//! a threadgroup a fiber, barriers and simdgroup operations where fibers meet.
//!
//! A launch fails, rather than giving wrong numbers, if it accesses anything out
//! of bounds, reads what nobody wrote, races, or if its threads do not all reach
//! the same barrier. What it cannot show: how fast a kernel is, and what a
//! driver's compiler makes of the text.
//!
//! Knows nothing of MLX, so that it builds and runs anywhere.
#![expect(unsafe_code, reason = "calls the emulator, which is C++ as the kernels are")]

mod ffi;
mod tensor;

use std::ffi::{CString, c_char};

pub use tensor::{ElementType, Tensor};

/// A compile-time constant of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Constant {
    /// Declared `const int`.
    Int(i32),
    /// Declared `const float`.
    Float(f32),
}

/// What to run, on how many threads.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Folder of the kernel, or `planted_<name>`.
    pub kernel: &'a str,
    /// Every type that the kernel declares.
    pub types: &'a [(&'a str, ElementType)],
    /// Every constant that it declares.
    pub constants: &'a [(&'a str, Constant)],
    /// Threadgroups.
    pub groups: [usize; 3],
    /// Threads of a group, a multiple of 32.
    pub threads: usize,
    /// Which elements of a tile of the matrix unit a lane has.
    pub tiles: TileLayout,
}

/// The elements of a tile that a lane has, where GPUs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TileLayout {
    /// As with CUDA's `mma`.
    #[default]
    Cuda,
    /// As with Metal's `simdgroup_matrix`.
    Metal,
}

/// The kernel did something wrong, or was not given what it declares.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EmulatorError {
    /// What, and in which thread.
    pub message: String,
}

/// Runs a launch on `buffers`: name and tensor of every input and output.
///
/// # Errors
/// See [`EmulatorError`]. Outputs then hold some of the results.
///
/// # Panics
/// A name holds a NUL byte, or a size exceeds 31 bits.
pub fn run(launch: &Launch<'_>, buffers: &mut [(&str, &mut Tensor)]) -> Result<(), EmulatorError> {
    let name = |text: &str| CString::new(text).expect("a name without NUL");
    let size = |value: usize| i32::try_from(value).expect("a size of 31 bits");
    let kernel = name(launch.kernel);
    let buffer_names: Vec<CString> = buffers.iter().map(|(text, _)| name(text)).collect();
    let type_names: Vec<CString> = launch.types.iter().map(|(text, _)| name(text)).collect();
    let constant_names: Vec<CString> =
        launch.constants.iter().map(|(text, _)| name(text)).collect();
    let buffers: Vec<_> = buffers
        .iter_mut()
        .zip(&buffer_names)
        .map(|((_, tensor), name)| ffi::Buffer::new(name, tensor))
        .collect();
    let types: Vec<_> = launch
        .types
        .iter()
        .zip(&type_names)
        .map(|((_, element), name)| ffi::Type { name: name.as_ptr(), code: element.code() })
        .collect();
    let constants: Vec<_> = launch
        .constants
        .iter()
        .zip(&constant_names)
        .map(|((_, value), name)| ffi::Constant::new(name, *value))
        .collect();
    let raw = ffi::Launch {
        kernel: kernel.as_ptr(),
        buffers: buffers.as_ptr(),
        num_buffers: buffers.len() as i64,
        types: types.as_ptr(),
        num_types: types.len() as i64,
        constants: constants.as_ptr(),
        num_constants: constants.len() as i64,
        groups: launch.groups.map(size),
        threads: size(launch.threads),
        metal_tiles: (launch.tiles == TileLayout::Metal).into(),
    };
    let mut error = [0_u8; 600];
    // SAFETY: every pointer in `raw` is to a local that outlives the call, the
    // lengths are theirs, and the emulator writes only within the tensors (it
    // checks) and `error`.
    let status = unsafe {
        ffi::emulator_run(&raw const raw, error.as_mut_ptr().cast::<c_char>(), error.len() as i64)
    };
    if status == 0 {
        return Ok(());
    }
    let text = error.split(|byte| *byte == 0).next().unwrap_or_default();
    Err(EmulatorError { message: String::from_utf8_lossy(text).into_owned() })
}
