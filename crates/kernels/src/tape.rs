//! A step's launches, recorded instead of launched, to be replayed as one graph.
//!
//! Recording takes down what [`Kernels::run`](crate::Kernels::run) is called with
//! and gives it stand-ins for results. A launch may read what an earlier one gave,
//! what the step declared as its inputs, and arrays that were computed before the
//! step: those are taken for constants. An array that an operation of MLX computes
//! within the step is none of these, and the recording fails by its kernel's name.
//! Constants of one step are right for that step; whether they are for the next
//! shows when it gives an equal tape.
//!
//! Upstream: `sglang/srt/model_executor/cuda_graph_runner.py` (capture and replay).

use std::collections::HashMap;

use mlx::{
    Array, Dtype,
    cuda_graph::{CudaGraph, GraphOutput, Launch, LaunchArg},
};

use crate::{Call, KernelError};

mod arena;
mod unit;

pub use arena::Arena;

/// Why a step cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TapeError {
    /// An operation of MLX stands between two kernels.
    #[error("input {input} of {kernel} comes from an operation that cannot be replayed")]
    Foreign {
        /// The kernel.
        kernel: &'static str,
        /// Its input.
        input: &'static str,
    },
    /// No kernel of ours gives the step's result.
    #[error("the step's result comes from an operation that cannot be replayed")]
    ForeignResult,
}

/// What a step is given anew each time.
#[derive(Debug, Clone, Copy)]
pub struct TapeInput<'a> {
    /// The array of this step.
    pub array: &'a Array,
    /// Nobody reads its elements: it only has to be computed before.
    pub orders_only: bool,
}

#[derive(Debug, Clone)]
enum Operand {
    /// Place among the step's inputs.
    Input(usize),
    /// Place among what the launches gave.
    Value(usize),
    Constant(Array),
}

impl PartialEq for Operand {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Input(a), Self::Input(b)) | (Self::Value(a), Self::Value(b)) => a == b,
            (Self::Constant(a), Self::Constant(b)) => a.id() == b.id(),
            _ => false,
        }
    }
}

/// Shape and element type.
#[derive(Debug, Clone, PartialEq)]
struct Spec {
    shape: Vec<usize>,
    dtype: Dtype,
}

impl Spec {
    fn of(array: &Array) -> Self {
        Self { shape: array.shape(), dtype: array.dtype() }
    }

    fn nbytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size_in_bytes()
    }
}

#[derive(Debug, PartialEq)]
struct Recorded {
    call: Call,
    inputs: Vec<(Operand, Spec)>,
    /// Places among the values.
    outputs: Vec<usize>,
}

/// The launches of a step.
#[derive(Debug, PartialEq)]
pub struct Tape {
    launches: Vec<Recorded>,
    inputs: Vec<(Spec, bool)>,
    values: Vec<Spec>,
    /// Places among the values.
    outputs: Vec<usize>,
}

/// Takes launches down.
#[derive(Debug)]
pub struct Recorder {
    tape: Tape,
    known: HashMap<usize, Operand>,
    /// Their ids must not be given to other arrays meanwhile.
    kept: Vec<Array>,
    failed: Option<TapeError>,
}

impl Recorder {
    /// For a step with these inputs.
    pub fn new(inputs: &[TapeInput<'_>]) -> Self {
        let operands = (0..inputs.len()).map(Operand::Input);
        let known = inputs.iter().map(|input| input.array.id()).zip(operands).collect();
        let specs = inputs.iter().map(|input| (Spec::of(input.array), input.orders_only));
        Self {
            tape: Tape {
                launches: Vec::new(),
                inputs: specs.collect(),
                values: Vec::new(),
                outputs: Vec::new(),
            },
            known,
            kept: inputs.iter().map(|input| input.array.clone()).collect(),
            failed: None,
        }
    }

    /// A launch with what it reads. Gives stand-ins for its results.
    pub(crate) fn record(
        &mut self,
        call: &Call,
        inputs: &[&Array],
    ) -> Result<Vec<Array>, KernelError> {
        let outputs = call
            .outputs
            .iter()
            .map(|(shape, dtype)| Array::zeros(shape, *dtype))
            .collect::<Result<Vec<_>, _>>()?;
        let names = call.kernel.inputs();
        let mut operands = Vec::with_capacity(inputs.len());
        for (&array, name) in inputs.iter().zip(names) {
            let operand = match self.known.get(&array.id()) {
                Some(operand) => operand.clone(),
                None if array.is_computed() => Operand::Constant(array.clone()),
                None => {
                    let kernel = call.kernel.name;
                    self.failed.get_or_insert(TapeError::Foreign { kernel, input: name });
                    return Ok(outputs);
                }
            };
            operands.push((operand, Spec::of(array)));
        }
        let places = self.tape.values.len()..self.tape.values.len() + outputs.len();
        for (array, place) in outputs.iter().zip(places.clone()) {
            self.known.insert(array.id(), Operand::Value(place));
            self.kept.push(array.clone());
            self.tape.values.push(Spec::of(array));
        }
        let recorded = Recorded { call: call.clone(), inputs: operands, outputs: places.collect() };
        self.tape.launches.push(recorded);
        Ok(outputs)
    }

    /// The tape of a step that gave `outputs`.
    ///
    /// # Errors
    /// An operation of MLX took part.
    pub fn finish(mut self, outputs: &[&Array]) -> Result<Tape, TapeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        for array in outputs {
            match self.known.get(&array.id()) {
                Some(Operand::Value(place)) => self.tape.outputs.push(*place),
                _ => return Err(TapeError::ForeignResult),
            }
        }
        Ok(self.tape)
    }
}

impl Tape {
    /// Launches.
    pub fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether nothing was launched.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Makes it one CUDA graph. Its inputs and outputs are the tape's; what it gives
    /// holds until a graph of the same arena runs.
    ///
    /// # Errors
    /// No CUDA here, a kernel that does not compile, or no memory.
    pub fn to_cuda_graph(&self, arena: &mut Arena) -> Result<CudaGraph, KernelError> {
        let plan = self.plan();
        let launches = self
            .launches
            .iter()
            .map(|recorded| self.launch(recorded, &plan))
            .collect::<Result<Vec<_>, KernelError>>()?;
        let sizes = self.inputs.iter().map(|(spec, orders_only)| match orders_only {
            true => 0,
            false => spec.nbytes(),
        });
        let inputs: Vec<_> = plan.inputs.iter().copied().zip(sizes).collect();
        let outputs: Vec<_> = self
            .outputs
            .iter()
            .map(|&place| GraphOutput {
                offset: plan.values[place],
                shape: self.values[place].shape.clone(),
                dtype: self.values[place].dtype,
            })
            .collect();
        Ok(CudaGraph::new(&launches, arena.at_least(plan.nbytes)?, &inputs, &outputs)?)
    }

    fn launch(&self, recorded: &Recorded, plan: &arena::Plan) -> Result<Launch, KernelError> {
        let specs: Vec<_> =
            recorded.inputs.iter().map(|(_, spec)| (spec.shape.as_slice(), spec.dtype)).collect();
        let unit = unit::cuda(&recorded.call, &specs)?;
        let mut args = Vec::new();
        for (place, (operand, spec)) in recorded.inputs.iter().enumerate() {
            args.push(match operand {
                Operand::Input(at) => LaunchArg::Arena(plan.inputs[*at]),
                Operand::Value(at) => LaunchArg::Arena(plan.values[*at]),
                Operand::Constant(array) => LaunchArg::Array(array.clone()),
            });
            if unit.takes_shape[place] {
                args.push(LaunchArg::Bytes(unit::shape_bytes(&spec.shape)));
            }
        }
        args.extend(recorded.outputs.iter().map(|&at| LaunchArg::Arena(plan.values[at])));
        Ok(Launch {
            source: unit.source,
            name: unit.name,
            groups: recorded.call.groups,
            threads: recorded.call.threads,
            args,
        })
    }

    /// Where everything lies. A value's place is free again after its last reader.
    fn plan(&self) -> arena::Plan {
        let end = self.launches.len();
        let mut lives: Vec<_> = self.values.iter().map(|spec| (spec.nbytes(), 0, 0)).collect();
        for (time, recorded) in self.launches.iter().enumerate() {
            for &place in &recorded.outputs {
                (lives[place].1, lives[place].2) = (time, time);
            }
            for (operand, _) in &recorded.inputs {
                if let Operand::Value(place) = operand {
                    lives[*place].2 = time;
                }
            }
        }
        for &place in &self.outputs {
            lives[place].2 = end;
        }
        let inputs: Vec<usize> = self.inputs.iter().map(|(spec, _)| spec.nbytes()).collect();
        arena::plan(&inputs, &lives)
    }
}

#[cfg(test)]
mod tests;
