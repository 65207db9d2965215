//! The kernels of a step as one node of MLX's graph.
//!
//! MLX spends some microseconds on a node and wakes two threads for it again and
//! again, on a device whose cores all work for the kernels already. So while a
//! step is recorded, its kernels only take their place in a list and hand out
//! stand-ins for results; the list then becomes one node, which runs them one
//! after the other in memory of its own. What MLX computes before the first
//! kernel is an input of that node. An operation of MLX between two kernels
//! cannot be told from its stand-ins, so such a step is refused.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use mlx::{
    Array, Dtype, Result,
    cpu_kernel::{self, Constant, CpuKernel, Input, Operands, Output},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::scratch::Scratch;

#[cfg(test)]
mod tests;

/// Places begin at multiples of a cache line.
const ALIGNMENT: usize = 64;

/// Why a step cannot be one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A kernel reads what an operation of MLX made of another kernel's result.
    #[error("an operation of MLX stands between two kernels")]
    Foreign,
    /// No kernel of ours gives the step's result.
    #[error("the step's result comes from an operation of MLX")]
    ForeignResult,
    /// Two kernels hold the same array in place, to change it or to read it.
    #[error("two kernels hold the same array in place, as layers that share K and V do")]
    SharedInPlace,
}

thread_local! {
    /// The recording of this thread's step.
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// Shapes and types of a kernel's results.
type Specs = Vec<(Vec<usize>, Dtype)>;

/// Records steps, and keeps for the next one what is the same in it.
#[derive(Debug, Default)]
pub struct ChainRecorder {
    kept: Kept,
}

#[derive(Debug, Default)]
struct Kept {
    /// By stage.
    stand_ins: Vec<(Specs, Vec<Array>)>,
    /// Inputs of the step before. Alive, so that no other array has their ids.
    inputs: FxHashMap<usize, Array>,
    /// Inputs of two steps in a row, by id: weights, which the node holds instead
    /// of MLX, who would count and copy hundreds of handles.
    constants: FxHashMap<usize, Arc<Constant>>,
}

impl ChainRecorder {
    /// One that has recorded nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `step`, which gives one result, and gives that result as of one node.
    /// If that cannot be, nothing that `step` gave may be evaluated.
    ///
    /// # Errors
    /// Those of `step` and of MLX; inside, why there is no such node.
    pub fn record(
        &mut self,
        step: impl FnOnce() -> Result<Array>,
    ) -> Result<std::result::Result<Array, ChainError>> {
        /// Ends the recording, also when `step` panics.
        struct Ends;
        impl Drop for Ends {
            fn drop(&mut self) {
                RECORDING.take();
            }
        }
        let kept = std::mem::take(&mut self.kept);
        RECORDING.set(Some(Recording { kept, ..Recording::default() }));
        let ends = Ends;
        let result = step();
        let recording = RECORDING.take().unwrap_or_default();
        drop(ends);
        let (node, kept) = recording.finish(&result?)?;
        self.kept = kept;
        Ok(node)
    }
}

/// As [`cpu_kernel::cpu_kernel`], unless a step is recorded.
pub(super) fn node(
    kernel: Arc<dyn CpuKernel>,
    inputs: &[&Array],
    outputs: &[(&[usize], Dtype)],
) -> Result<Vec<Array>> {
    match record(&kernel, inputs, &[], outputs) {
        Some(arrays) => arrays,
        None => cpu_kernel::cpu_kernel(kernel, inputs, outputs),
    }
}

/// As [`cpu_kernel::cpu_kernel_in_place`], unless a step is recorded.
///
/// # Safety
/// As there, until the node of the step is evaluated.
pub(super) unsafe fn node_in_place(
    kernel: Arc<dyn CpuKernel>,
    inputs: &[&Array],
    in_place: &[&Array],
    outputs: &[(&[usize], Dtype)],
) -> Result<Vec<Array>> {
    match record(&kernel, inputs, in_place, outputs) {
        Some(arrays) => arrays,
        // SAFETY: the caller's promise.
        None => unsafe { cpu_kernel::cpu_kernel_in_place(kernel, inputs, in_place, outputs) },
    }
}

fn record(
    kernel: &Arc<dyn CpuKernel>,
    inputs: &[&Array],
    in_place: &[&Array],
    outputs: &[(&[usize], Dtype)],
) -> Option<Result<Vec<Array>>> {
    RECORDING.with_borrow_mut(|recording| {
        let recording = recording.as_mut()?;
        Some(recording.add(kernel, inputs, in_place, outputs))
    })
}

/// Where a kernel's input comes from.
#[derive(Debug, Clone, Copy)]
enum Operand {
    /// Place among the node's inputs.
    Input(usize),
    /// Place among the constants.
    Constant(usize),
    /// Place among the values.
    Value(usize),
}

/// A result of a kernel.
#[derive(Debug)]
struct Value {
    shape: Vec<i32>,
    dtype: Dtype,
    nbytes: usize,
    /// In bytes, in the node's memory; unused for the node's result.
    offset: usize,
    /// The last kernel that reads it, or the one that gives it.
    last_use: usize,
}

struct Stage {
    kernel: Arc<dyn CpuKernel>,
    inputs: Vec<Operand>,
    /// Places among the arrays that the node changes.
    in_place: std::ops::Range<usize>,
    /// Places among the values.
    outputs: std::ops::Range<usize>,
}

#[derive(Default)]
struct Recording {
    stages: Vec<Stage>,
    values: Vec<Value>,
    inputs: Vec<Array>,
    constants: Vec<Arc<Constant>>,
    in_place: Vec<Array>,
    /// Their ids.
    changed: FxHashSet<usize>,
    /// By the ids of arrays, which stay alive in here.
    known: FxHashMap<usize, Operand>,
    kept: Kept,
    failed: Option<ChainError>,
}

impl Recording {
    fn add(
        &mut self,
        kernel: &Arc<dyn CpuKernel>,
        inputs: &[&Array],
        in_place: &[&Array],
        outputs: &[(&[usize], Dtype)],
    ) -> Result<Vec<Array>> {
        let stage = self.stages.len();
        let inputs = inputs.iter().map(|array| self.operand(array, stage)).collect();
        let first_in_place = self.in_place.len();
        for array in in_place {
            if self.known.contains_key(&array.id()) || !self.changed.insert(array.id()) {
                self.failed.get_or_insert(ChainError::SharedInPlace);
            }
            self.in_place.push((*array).clone());
        }
        let arrays = self.stand_ins(stage, outputs)?;
        let first_value = self.values.len();
        for (array, (shape, dtype)) in arrays.iter().zip(outputs) {
            self.known.insert(array.id(), Operand::Value(self.values.len()));
            self.values.push(Value {
                shape: shape.iter().map(|&size| size as i32).collect(),
                dtype: *dtype,
                nbytes: shape.iter().product::<usize>() * dtype.size_in_bytes(),
                offset: 0,
                last_use: stage,
            });
        }
        self.stages.push(Stage {
            kernel: Arc::clone(kernel),
            inputs,
            in_place: first_in_place..self.in_place.len(),
            outputs: first_value..self.values.len(),
        });
        Ok(arrays)
    }

    fn operand(&mut self, array: &Array, stage: usize) -> Operand {
        if let Some(&operand) = self.known.get(&array.id()) {
            if let Operand::Value(value) = operand {
                self.values[value].last_use = stage;
            }
            return operand;
        }
        let operand = match self.constant(array) {
            Some(constant) => {
                self.constants.push(constant);
                Operand::Constant(self.constants.len() - 1)
            }
            None => {
                if cpu_kernel::awaits_cpu_kernel(array) {
                    self.failed.get_or_insert(ChainError::Foreign);
                }
                self.inputs.push(array.clone());
                Operand::Input(self.inputs.len() - 1)
            }
        };
        self.known.insert(array.id(), operand);
        operand
    }

    /// The array as a constant, if it was an input of the step before, too.
    fn constant(&mut self, array: &Array) -> Option<Arc<Constant>> {
        let id = array.id();
        if let Some(constant) = self.kept.constants.get(&id) {
            return Some(Arc::clone(constant));
        }
        self.kept.inputs.get(&id)?;
        let constant = Arc::new(Constant::new(array)?);
        self.kept.constants.insert(id, Arc::clone(&constant));
        Some(constant)
    }

    /// Those of the step before, if they are alike.
    fn stand_ins(&mut self, stage: usize, outputs: &[(&[usize], Dtype)]) -> Result<Vec<Array>> {
        let is_alike = |(specs, _): &&(Specs, Vec<Array>)| {
            specs.len() == outputs.len()
                && specs.iter().zip(outputs).all(|(a, b)| (a.0.as_slice(), a.1) == *b)
        };
        if let Some((_, arrays)) = self.kept.stand_ins.get(stage).filter(is_alike) {
            return Ok(arrays.clone());
        }
        let arrays = cpu_kernel::stand_ins(outputs)?;
        self.kept.stand_ins.truncate(stage);
        let specs = outputs.iter().map(|(shape, dtype)| (shape.to_vec(), *dtype)).collect();
        self.kept.stand_ins.push((specs, arrays.clone()));
        Ok(arrays)
    }

    /// The node that gives `result`, and what is kept for the next step.
    fn finish(mut self, result: &Array) -> Result<(std::result::Result<Array, ChainError>, Kept)> {
        let mut kept = std::mem::take(&mut self.kept);
        if let Some(error) = self.failed {
            return Ok((Err(error), kept));
        }
        let Some(&Operand::Value(result)) = self.known.get(&result.id()) else {
            return Ok((Err(ChainError::ForeignResult), kept));
        };
        // What this step did not read is no weight, or a weight of another model.
        kept.constants.retain(|id, _| self.known.contains_key(id));
        kept.inputs = self.inputs.iter().map(|array| (array.id(), array.clone())).collect();
        let nbytes = place(&self.stages, &mut self.values, result);
        let Self { stages, values, inputs, constants, in_place, .. } = self;
        let shape: Vec<usize> = values[result].shape.iter().map(|&size| size as usize).collect();
        let outputs: &[(&[usize], Dtype)] = &[(&shape, values[result].dtype)];
        let inputs: Vec<&Array> = inputs.iter().collect();
        let in_place: Vec<&Array> = in_place.iter().collect();
        let kernel = Arc::new(Chain { stages, values, constants, result, nbytes });
        // SAFETY: promised by the callers of `node_in_place`; that no array is
        // read and changed, or changed twice, was seen to while recording.
        let mut node =
            unsafe { cpu_kernel::cpu_kernel_in_place(kernel, &inputs, &in_place, outputs)? };
        Ok((Ok(node.remove(0)), kept))
    }
}

/// Gives values their places and tells how many bytes that takes. A place is free
/// for values of its size after the last kernel that reads it.
fn place(stages: &[Stage], values: &mut [Value], result: usize) -> usize {
    let mut end = 0;
    let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let size = |value: &Value| value.nbytes.max(1).next_multiple_of(ALIGNMENT);
    for (index, stage) in stages.iter().enumerate() {
        for value in stage.outputs.clone().filter(|&value| value != result) {
            let size = size(&values[value]);
            values[value].offset = free.get_mut(&size).and_then(Vec::pop).unwrap_or_else(|| {
                end += size;
                end - size
            });
        }
        let read = stage.inputs.iter().filter_map(|operand| match operand {
            Operand::Value(value) => Some(*value),
            Operand::Input(_) | Operand::Constant(_) => None,
        });
        let mut done: Vec<usize> = read.chain(stage.outputs.clone()).collect();
        done.sort_unstable();
        done.dedup();
        for value in done {
            if values[value].last_use == index && value != result {
                free.entry(size(&values[value])).or_default().push(values[value].offset);
            }
        }
    }
    end
}

struct Chain {
    stages: Vec<Stage>,
    values: Vec<Value>,
    constants: Vec<Arc<Constant>>,
    /// Place among the values.
    result: usize,
    nbytes: usize,
}

impl CpuKernel for Chain {
    fn run(&self, operands: Operands<'_>) {
        Scratch::Chain.with(self.nbytes.div_ceil(size_of::<f32>()), |memory| {
            self.run_in(memory.as_mut_ptr().cast(), operands);
        });
    }
}

impl Chain {
    /// `memory` has `self.nbytes` bytes that nobody else uses.
    fn run_in(&self, memory: *mut u8, operands: Operands<'_>) {
        let Operands { inputs, mut in_place, mut outputs } = operands;
        let result = outputs[0].bytes_mut().as_mut_ptr();
        let data = |place: usize| match place == self.result {
            true => result,
            // SAFETY: places are inside of the memory.
            false => unsafe { memory.add(self.values[place].offset) },
        };
        for stage in &self.stages {
            let input = |operand: &Operand| match *operand {
                Operand::Input(place) => inputs[place],
                Operand::Constant(place) => self.constants[place].input(),
                Operand::Value(place) => {
                    let value = &self.values[place];
                    // SAFETY: an earlier kernel filled it, and none writes there
                    // before the last one that reads it.
                    let bytes = unsafe { std::slice::from_raw_parts(data(place), value.nbytes) };
                    Input::new(bytes, &value.shape, value.dtype)
                }
            };
            let output = |place: usize| {
                let value = &self.values[place];
                // SAFETY: its place is nobody else's until its last reader.
                let bytes = unsafe { std::slice::from_raw_parts_mut(data(place), value.nbytes) };
                Output::new(bytes, &value.shape, value.dtype)
            };
            stage.kernel.run(Operands {
                inputs: stage.inputs.iter().map(input).collect(),
                in_place: in_place[stage.in_place.clone()]
                    .iter_mut()
                    .map(Output::reborrow)
                    .collect(),
                outputs: stage.outputs.clone().map(output).collect(),
            });
        }
    }
}
