//! Computations of our own on the CPU device, as nodes of MLX's graph.
//!
//! MLX evaluates a [`CpuKernel`] like any operation of its own: on the thread of
//! the CPU stream, one after the other, after its inputs. A node costs a few
//! microseconds, so a kernel should do much.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytemuck::AnyBitPattern;
use mlx_sys::{
    RawOperand, mlxs_array_elements, mlxs_awaits_cpu_kernel, mlxs_cpu_kernel, mlxs_set_error,
};

use crate::{
    Array, Dtype, Element, Result,
    handle::{OutputSpec, give_vec, panic_text, pointers, text},
};

/// A computation on operands in memory.
pub trait CpuKernel: Send + Sync + 'static {
    /// Runs on MLX's thread of the CPU device. Operands are row-contiguous.
    /// A panic becomes an error of the evaluation.
    fn run(&self, operands: Operands<'_>);
}

/// What a [`CpuKernel`] works on.
#[derive(Debug)]
pub struct Operands<'a> {
    /// In the order of the call.
    pub inputs: Vec<Input<'a>>,
    /// Arrays that are changed where they are, see [`cpu_kernel_in_place`].
    pub in_place: Vec<Output<'a>>,
    /// To be filled; they hold anything.
    pub outputs: Vec<Output<'a>>,
}

/// An operand that is read.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    bytes: &'a [u8],
    shape: &'a [i32],
    dtype: Dtype,
}

/// An operand that is written.
#[derive(Debug)]
pub struct Output<'a> {
    bytes: &'a mut [u8],
    shape: &'a [i32],
    dtype: Dtype,
}

impl<'a> Input<'a> {
    /// An operand of these elements in row-major order, for kernels that call others.
    pub fn new(bytes: &'a [u8], shape: &'a [i32], dtype: Dtype) -> Self {
        Self { bytes, shape, dtype }
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The sizes of all axes, none negative.
    pub fn shape(&self) -> &'a [i32] {
        self.shape
    }

    /// The size of an axis.
    ///
    /// # Panics
    /// There is no such axis.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape[axis] as usize
    }

    /// The elements in row-major order.
    ///
    /// # Panics
    /// The type is not `T`.
    pub fn as_slice<T: Element + AnyBitPattern>(&self) -> &'a [T] {
        assert_eq!(self.dtype, T::DTYPE, "element type of a kernel's input");
        bytemuck::cast_slice(self.bytes)
    }
}

impl<'a> Output<'a> {
    /// An operand of these elements in row-major order, for kernels that call others.
    pub fn new(bytes: &'a mut [u8], shape: &'a [i32], dtype: Dtype) -> Self {
        Self { bytes, shape, dtype }
    }

    /// The same operand for a shorter while.
    pub fn reborrow(&mut self) -> Output<'_> {
        Output { bytes: self.bytes, shape: self.shape, dtype: self.dtype }
    }

    /// The elements in row-major order, in native byte order.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The sizes of all axes, none negative.
    pub fn shape(&self) -> &[i32] {
        self.shape
    }

    /// The size of an axis.
    ///
    /// # Panics
    /// There is no such axis.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape[axis] as usize
    }

    /// The elements in row-major order.
    ///
    /// # Panics
    /// The type is not `T`.
    pub fn as_mut_slice<T: Element + bytemuck::Pod>(&mut self) -> &mut [T] {
        assert_eq!(self.dtype, T::DTYPE, "element type of a kernel's output");
        bytemuck::cast_slice_mut(self.bytes)
    }
}

struct State {
    kernel: Arc<dyn CpuKernel>,
    num_in_place: usize,
}

/// Adds a node that runs `kernel` on `inputs`; gives arrays of the shapes and
/// types in `outputs`. Inputs whose elements lie apart are copied first.
///
/// # Errors
/// There is no memory. Errors of the kernel come when it is evaluated.
pub fn cpu_kernel(
    kernel: Arc<dyn CpuKernel>,
    inputs: &[&Array],
    outputs: &[(&[usize], Dtype)],
) -> Result<Vec<Array>> {
    add(State { kernel, num_in_place: 0 }, inputs, outputs)
}

/// As [`cpu_kernel`], and the kernel may also change the arrays `in_place`.
/// MLX does not know of it: whoever must see the change has to depend on one of
/// the outputs.
///
/// # Safety
/// The arrays `in_place` are evaluated, distinct, row-contiguous, and share no
/// memory with `inputs`. From this call until the outputs are evaluated nothing
/// else reads or writes their memory but kernels of the same stream.
///
/// # Errors
/// As for [`cpu_kernel`].
pub unsafe fn cpu_kernel_in_place(
    kernel: Arc<dyn CpuKernel>,
    inputs: &[&Array],
    in_place: &[&Array],
    outputs: &[(&[usize], Dtype)],
) -> Result<Vec<Array>> {
    let all: Vec<&Array> = inputs.iter().chain(in_place).copied().collect();
    add(State { kernel, num_in_place: in_place.len() }, &all, outputs)
}

/// An array that is computed, for kernels that hold it themselves: weights.
pub struct Constant {
    /// Keeps the elements where they are.
    array: Array,
    data: *const u8,
    nbytes: usize,
    shape: Vec<i32>,
    dtype: Dtype,
}

// SAFETY: only the elements are used, which do not change; the array's handle is
// cloned by one thread and dropped by one, and MLX counts its users atomically.
unsafe impl Send for Constant {}
// SAFETY: as above.
unsafe impl Sync for Constant {}

impl std::fmt::Debug for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constant").field("shape", &self.shape).field("dtype", &self.dtype).finish()
    }
}

impl Constant {
    /// `None` if the array is not computed or its elements lie apart.
    pub fn new(array: &Array) -> Option<Self> {
        // SAFETY: the handle is alive.
        let data = unsafe { mlxs_array_elements(array.as_raw()) };
        let shape = array.shape();
        let nbytes = array.nbytes();
        (!data.is_null() || nbytes == 0).then(|| Self {
            data: data.cast(),
            nbytes,
            shape: shape.iter().map(|&size| size as i32).collect(),
            dtype: array.dtype(),
            array: array.clone(),
        })
    }

    /// The array.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// It as an operand.
    pub fn input(&self) -> Input<'_> {
        let bytes: &[u8] = match self.nbytes {
            0 => &[],
            // SAFETY: the array's elements, alive as long as it is.
            len => unsafe { std::slice::from_raw_parts(self.data, len) },
        };
        Input { bytes, shape: &self.shape, dtype: self.dtype }
    }
}

/// Arrays that no kernel gives yet: to be told apart, asked for shape and type,
/// and handed to whoever puts the kernel in later. To evaluate one is an error.
///
/// # Errors
/// There is no memory.
pub fn stand_ins(outputs: &[(&[usize], Dtype)]) -> Result<Vec<Array>> {
    struct StandIn;
    impl CpuKernel for StandIn {
        fn run(&self, _operands: Operands<'_>) {
            panic!("an array that only stands for a later one was evaluated");
        }
    }
    cpu_kernel(Arc::new(StandIn), &[], outputs)
}

/// Whether a [`CpuKernel`] that was not handed over for evaluation yet is among
/// what an array comes from.
pub fn awaits_cpu_kernel(array: &Array) -> bool {
    // SAFETY: the handle is alive.
    unsafe { mlxs_awaits_cpu_kernel(array.as_raw()) }
}

fn add(state: State, inputs: &[&Array], outputs: &[(&[usize], Dtype)]) -> Result<Vec<Array>> {
    const OP: &str = "cpu_kernel";
    let spec = OutputSpec::new(OP, outputs)?;
    let inputs = pointers(inputs);
    let state = Box::into_raw(Box::new(state)).cast::<c_void>();
    // SAFETY: inputs are alive, pointers and lengths belong together, and the
    // shim owns `state` from here on, which both functions know the type of.
    give_vec(OP, |out| unsafe {
        mlxs_cpu_kernel(
            out,
            call,
            drop_state,
            state,
            inputs.as_ptr(),
            inputs.len(),
            spec.sizes.as_ptr(),
            spec.ndims.as_ptr(),
            spec.codes.as_ptr(),
            spec.codes.len(),
        )
    })
}

unsafe extern "C" fn call(
    state: *mut c_void,
    inputs: *const RawOperand,
    num_inputs: usize,
    outputs: *const RawOperand,
    num_outputs: usize,
) -> i32 {
    // A panic must not unwind into C++.
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `state` is what `add` made, alive while it is called.
        let state = unsafe { &*state.cast::<State>() };
        // SAFETY: the shim hands over this many operands.
        let (inputs, outputs) = unsafe { (list(inputs, num_inputs), list(outputs, num_outputs)) };
        let (inputs, in_place) = inputs.split_at(num_inputs - state.num_in_place);
        // SAFETY: the shim's operands are memory of their own, alive during the
        // call; those in place are nobody else's, as promised by who added them.
        let operands = unsafe {
            Operands {
                inputs: inputs.iter().map(|raw| input(raw)).collect(),
                in_place: in_place.iter().map(|raw| output(raw)).collect(),
                outputs: outputs.iter().map(|raw| output(raw)).collect(),
            }
        };
        state.kernel.run(operands);
    }));
    let Err(panic) = result else { return 0 };
    let message = format!("a CPU kernel panicked: {}", panic_text(panic.as_ref()));
    let (bytes, len) = text(&message);
    // SAFETY: the shim copies the text.
    unsafe { mlxs_set_error(bytes, len) };
    1
}

/// # Safety
/// `data` points to `len` operands that outlive `'a`.
unsafe fn list<'a>(data: *const RawOperand, len: usize) -> &'a [RawOperand] {
    if len == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// # Safety
/// The operand's memory outlives `'a` and is not written meanwhile.
unsafe fn input<'a>(raw: &RawOperand) -> Input<'a> {
    let bytes: &[u8] = match raw.nbytes {
        0 => &[],
        // SAFETY: promised by the caller.
        len => unsafe { std::slice::from_raw_parts(raw.data.cast(), len) },
    };
    // SAFETY: as above.
    unsafe { Input { bytes, shape: shape(raw), dtype: dtype(raw) } }
}

/// # Safety
/// The operand's memory outlives `'a`, and nobody else uses it meanwhile.
unsafe fn output<'a>(raw: &RawOperand) -> Output<'a> {
    let bytes: &mut [u8] = match raw.nbytes {
        0 => &mut [],
        // SAFETY: promised by the caller.
        len => unsafe { std::slice::from_raw_parts_mut(raw.data.cast(), len) },
    };
    // SAFETY: as above.
    unsafe { Output { bytes, shape: shape(raw), dtype: dtype(raw) } }
}

/// # Safety
/// The operand's shape outlives `'a`.
unsafe fn shape<'a>(raw: &RawOperand) -> &'a [i32] {
    if raw.ndim == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(raw.shape, raw.ndim) }
}

fn dtype(raw: &RawOperand) -> Dtype {
    Dtype::from_code(raw.dtype).expect("the shim knows all dtypes of the pinned MLX")
}

unsafe extern "C" fn drop_state(state: *mut c_void) {
    // SAFETY: `state` is what `add` made, dropped once.
    let state = unsafe { Box::from_raw(state.cast::<State>()) };
    // A kernel that panics when dropped must not unwind into C++.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(state)));
}
