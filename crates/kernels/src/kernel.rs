//! Kernels for GPUs: one text in the portable dialect, assembled for Metal or
//! CUDA.
//!
//! A body (`<kernel>/body.inc`) is the inside of a kernel's function. Its `//@`
//! lines declare types, inputs, outputs and constants. The text that the driver
//! compiles is the dialect's prelude, the constants of the call, the body. MLX
//! caches what it compiled by name, so a name ends in a hash of the text.
//!
//! `inout` is an input that the kernel writes: see [`crate::kv_write`] for what
//! that asks of callers.

use std::{cell::RefCell, rc::Rc};

use mlx::{
    Array, Dtype,
    device::{self, DeviceKind},
    gpu_kernel::{GpuDialect, GpuKernel, GpuSource},
};

use crate::{KernelError, KvDtype, probe, tape::Recorder};

const METAL: &str = include_str!("dialect/metal.h");
const METAL_POSITIONS: &str = include_str!("dialect/metal_positions.h");
const CUDA: &str = include_str!("dialect/cuda.h");
/// For kernels that have a pool of K and V.
const KV_ROW: &str = include_str!("dialect/kv_row.h");

/// The text of a kernel.
#[derive(Debug)]
pub struct Kernel {
    /// Its folder.
    pub name: &'static str,
    /// Its `body.inc`.
    pub body: &'static str,
}

/// The value of a constant of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Constant {
    /// Declared `const int`.
    Int(i32),
    /// Declared `const float`.
    Float(f32),
}

impl From<bool> for Constant {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<f32> for Constant {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// Sizes beyond 31 bits do not occur: every launcher checks its shapes.
impl From<usize> for Constant {
    fn from(value: usize) -> Self {
        Self::Int(i32::try_from(value).unwrap_or(i32::MAX))
    }
}

/// A launch without its inputs: all that a GPU or the emulator has to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What runs.
    pub kernel: &'static Kernel,
    /// Every type that it declares: plain ones, and packed ones for pools of K and V.
    pub types: Vec<(&'static str, KvDtype)>,
    /// Every constant that it declares.
    pub constants: Vec<(&'static str, Constant)>,
    /// Threadgroups.
    pub groups: [usize; 3],
    /// Threads of a group, a multiple of 32.
    pub threads: usize,
    /// Shape and element type of each output, in the order of the declarations.
    pub outputs: Vec<(Vec<usize>, Dtype)>,
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Kernel {
    fn names(&self, roles: &[&str]) -> Vec<&'static str> {
        let declared = self.body.lines().filter_map(|line| line.strip_prefix("//@ "));
        declared
            .filter(|line| roles.contains(&line.split(' ').next().unwrap_or_default()))
            .filter_map(|line| line.split(' ').nth(2))
            .collect()
    }

    /// Names of the inputs, in order.
    pub fn inputs(&self) -> Vec<&'static str> {
        self.names(&["input", "inout"])
    }

    /// Names of the inputs that it writes, in order.
    pub fn written(&self) -> Vec<&'static str> {
        self.names(&["inout"])
    }

    /// Names of the outputs, in order.
    pub fn outputs(&self) -> Vec<&'static str> {
        self.names(&["output"])
    }
}

/// What a driver compiles: the part before the function, and the function's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelText {
    /// Unique for this text.
    pub name: String,
    /// Stands before the function.
    pub header: String,
    /// The inside of the function.
    pub source: String,
}

impl Call {
    /// The text for a GPU. Without comments and indentation: MLX puts it together
    /// and hashes it at every call.
    ///
    /// # Errors
    /// An element type that the dialect does not know.
    pub fn text(&self, dialect: GpuDialect) -> Result<KernelText, KernelError> {
        let (header, positions) = match dialect {
            GpuDialect::Metal => (METAL, METAL_POSITIONS),
            GpuDialect::Cuda => (CUDA, "POSITIONS\n"),
        };
        let mut source = String::from(positions);
        for (name, dtype) in &self.types {
            source += &format!("typedef {} {name};\n", type_name(*dtype)?);
        }
        for (name, value) in &self.constants {
            source += &match value {
                Constant::Int(value) => format!("constexpr int {name} = {value};\n"),
                Constant::Float(value) => format!("constexpr float {name} = {value:e}f;\n"),
            };
        }
        source += self.kernel.body;
        let rows = if self.types.iter().any(|(name, _)| *name == "KV") { KV_ROW } else { "" };
        let (header, source) = (minified(header) + &minified(rows), minified(&source));
        let name = format!("{}_{:016x}", self.kernel.name, fnv(&[&header, &source]));
        Ok(KernelText { name, header, source })
    }

    fn same_text(&self, other: &Self) -> bool {
        std::ptr::eq(self.kernel, other.kernel)
            && self.types == other.types
            && self.constants == other.constants
    }
}

/// The dialect's name of an element type.
fn type_name(dtype: KvDtype) -> Result<&'static str, KernelError> {
    match dtype {
        KvDtype::Plain(Dtype::Float32) => Ok("float"),
        KvDtype::Plain(Dtype::Float16) => Ok("half_t"),
        KvDtype::Plain(Dtype::Bfloat16) => Ok("bfloat_t"),
        KvDtype::Plain(other) => Err(KernelError::ElementType { dtype: other }),
        KvDtype::Fp8E4m3 => Ok("fp8_row"),
        KvDtype::Int8 => Ok("int8_row"),
        KvDtype::Int4 => Ok("int4_row"),
    }
}

fn minified(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if !line.is_empty() {
            out += line;
            out.push('\n');
        }
    }
    out
}

fn fnv(parts: &[&str]) -> u64 {
    parts.iter().flat_map(|part| part.bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The kernels of one GPU, prepared when they are first called. Belongs to the
/// thread that owns MLX.
#[derive(Debug)]
pub struct Kernels {
    dialect: GpuDialect,
    prepared: RefCell<Vec<(Call, GpuKernel)>>,
    recorder: RefCell<Option<Recorder>>,
}

thread_local! {
    /// `None` without a GPU.
    static HERE: Option<Result<Rc<Kernels>, String>> = GpuDialect::here().map(|dialect| {
        let kernels = Kernels::new(dialect);
        // CUDA's were measured (`examples/gpu_check`); Metal's text was only ever run
        // by the emulator.
        if dialect == GpuDialect::Metal {
            probe(&kernels)?;
        }
        Ok(Rc::new(kernels))
    });
}

impl Kernels {
    /// For a GPU that speaks `dialect`.
    pub fn new(dialect: GpuDialect) -> Self {
        Self { dialect, prepared: RefCell::default(), recorder: RefCell::default() }
    }

    /// Those of this machine's GPU, shared by all callers of a thread; `None`
    /// without a GPU, if MLX's default device is the CPU, or if the GPU does not run
    /// them as it should, see [`Kernels::fault`].
    pub fn here() -> Option<Rc<Self>> {
        match device::default() {
            Ok(DeviceKind::Gpu) => HERE.with(|here| here.as_ref()?.as_ref().ok().cloned()),
            _ => None,
        }
    }

    /// Why a GPU that is there gets no kernels of ours.
    pub fn fault() -> Option<String> {
        match device::default() {
            Ok(DeviceKind::Gpu) => HERE.with(|here| here.as_ref()?.as_ref().err().cloned()),
            _ => None,
        }
    }

    /// The language of the GPU.
    pub fn dialect(&self) -> GpuDialect {
        self.dialect
    }

    /// Threadgroups that keep the GPU busy.
    pub fn target_groups(&self) -> usize {
        match self.dialect {
            GpuDialect::Cuda => 528,
            GpuDialect::Metal => 160,
        }
    }

    /// Adds the call to the graph.
    ///
    /// # Errors
    /// Inputs that are not those of the kernel, or an error of MLX.
    pub fn run(&self, call: &Call, inputs: &[&Array]) -> Result<Vec<Array>, KernelError> {
        if let Some(recorder) = &mut *self.recorder.borrow_mut() {
            return recorder.record(call, inputs);
        }
        let mut prepared = self.prepared.borrow_mut();
        let at = match prepared.iter().position(|(other, _)| other.same_text(call)) {
            Some(at) => at,
            None => {
                prepared.push((call.clone(), self.prepare(call)?));
                prepared.len() - 1
            }
        };
        let outputs: Vec<_> =
            call.outputs.iter().map(|(shape, dtype)| (shape.as_slice(), *dtype)).collect();
        let grid = [call.groups[0] * call.threads, call.groups[1], call.groups[2]];
        Ok(prepared[at].1.call(inputs, &outputs, grid, [call.threads, 1, 1])?)
    }

    /// Calls that `step` makes are taken down, not launched; what it gives must not
    /// be evaluated.
    pub fn record<T>(&self, recorder: Recorder, step: impl FnOnce() -> T) -> (T, Recorder) {
        self.recorder.replace(Some(recorder));
        let result = step();
        let recorder = self.recorder.take().expect("a step does not record by itself");
        (result, recorder)
    }

    fn prepare(&self, call: &Call) -> Result<GpuKernel, KernelError> {
        let text = call.text(self.dialect)?;
        let source = GpuSource {
            name: &text.name,
            inputs: &call.kernel.inputs(),
            outputs: &call.kernel.outputs(),
            source: &text.source,
            header: &text.header,
            shared_memory: 0,
        };
        Ok(GpuKernel::new(self.dialect, &source)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static KERNEL: Kernel = Kernel {
        name: "toy",
        body: "//@ type T\n//@ input T x\n//@ inout T pool\n//@ output int y\n  y[0] = N; // why\n",
    };

    fn call(value: i32) -> Call {
        Call {
            kernel: &KERNEL,
            types: vec![("T", Dtype::Bfloat16.into())],
            constants: vec![("N", Constant::Int(value)), ("S", Constant::Float(0.1))],
            groups: [1, 1, 1],
            threads: 32,
            outputs: vec![],
        }
    }

    #[test]
    fn declarations_are_read_from_the_body() {
        assert_eq!(KERNEL.inputs(), ["x", "pool"]);
        assert_eq!(KERNEL.outputs(), ["y"]);
    }

    #[test]
    fn text_is_positions_types_constants_body() {
        let text = call(3).text(GpuDialect::Cuda).unwrap();
        assert_eq!(
            text.source,
            "POSITIONS\ntypedef bfloat_t T;\nconstexpr int N = 3;\nconstexpr float S = 1e-1f;\ny[0] = N;\n"
        );
        assert!(text.header.contains("#define POSITIONS"));
        let metal = call(3).text(GpuDialect::Metal).unwrap();
        assert!(
            metal.source.starts_with("const int GROUP_X = int(threadgroup_position_in_grid.x)")
        );
        assert!(!metal.header.contains("threadgroup_position_in_grid"));
    }

    #[test]
    fn another_text_has_another_name() {
        let name = |value, dialect| call(value).text(dialect).unwrap().name;
        assert_eq!(name(3, GpuDialect::Cuda), name(3, GpuDialect::Cuda));
        assert_ne!(name(3, GpuDialect::Cuda), name(4, GpuDialect::Cuda));
        assert_ne!(name(3, GpuDialect::Cuda), name(3, GpuDialect::Metal));
    }
}
