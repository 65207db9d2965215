//! Decode steps as CUDA graphs, one for each shape of a step.
//!
//! A step of a new shape runs as it would without this runner and is recorded; the
//! second one, if it is recorded alike, becomes a graph, and from the third on the
//! graph is launched as a whole. A model with an operation that is no kernel of
//! ours between the first and the last cannot be replayed: it runs step by step,
//! and the log says which operation it was.
//!
//! Upstream: `sglang/srt/model_executor/cuda_graph_runner.py`.

use std::{collections::HashMap, rc::Rc};

use attention::{ForwardBatch, ForwardMode};
use kernels::{
    Kernels,
    tape::{Recorder, Tape, TapeInput},
};
use mlx::{Array, Result, cuda_graph::CudaGraph, gpu_kernel::GpuDialect};
use models::CausalLm;

use super::{GraphRunner, RunnerEntry};

pub(super) const ENTRY: RunnerEntry =
    RunnerEntry { name: "compiled", new: || Box::new(Compiled::new()) };

/// Shapes that are kept. Each has buffers of its own.
const MAX_GRAPHS: usize = 64;

struct Compiled {
    /// `None` where graphs are not to be had.
    kernels: Option<Rc<Kernels>>,
    /// By the shapes of a step's inputs.
    steps: HashMap<Vec<Vec<usize>>, Step>,
    /// The reason was logged.
    warned: bool,
}

enum Step {
    /// Recorded once.
    Seen(Tape),
    Ready(CudaGraph),
    /// Cannot be replayed.
    Refused,
}

impl Compiled {
    fn new() -> Self {
        let kernels = Kernels::here().filter(|kernels| kernels.dialect() == GpuDialect::Cuda);
        if kernels.is_none() {
            tracing::warn!("graph runner compiled needs CUDA: using eager");
        }
        Self { kernels, steps: HashMap::new(), warned: false }
    }

    fn refuse(&mut self, reason: &dyn std::fmt::Display) -> Step {
        if !self.warned {
            tracing::warn!("decode steps run eagerly, not as a graph: {reason}");
        }
        self.warned = true;
        Step::Refused
    }

    /// Runs the step eagerly and looks whether it can be replayed next time.
    fn record(
        &mut self,
        kernels: &Kernels,
        (key, seen): (Vec<Vec<usize>>, Option<Tape>),
        model: &dyn CausalLm,
        batch: &ForwardBatch,
        inputs: &[TapeInput<'_>],
    ) -> Result<Array> {
        kernels.watch(Some(Recorder::new(inputs)));
        let logits = model.forward(batch);
        let recorder = kernels.watch(None).expect("nobody else ends a recording");
        let logits = logits?;
        let step = match recorder.finish(&[&logits, &batch.chain()]) {
            Err(error) => self.refuse(&error),
            Ok(tape) if seen.is_none() => Step::Seen(tape),
            Ok(tape) if seen.as_ref() == Some(&tape) => match tape.to_cuda_graph() {
                Ok(graph) => Step::Ready(graph),
                Err(error) => self.refuse(&error),
            },
            Ok(_) => self.refuse(&"two steps of one shape differ"),
        };
        self.steps.insert(key, step);
        Ok(logits)
    }
}

impl GraphRunner for Compiled {
    fn run(&mut self, model: &dyn CausalLm, batch: &ForwardBatch) -> Result<Array> {
        let is_decode = batch.mode == ForwardMode::Decode && batch.sampled_rows.is_none();
        let (Some(kernels), true) = (self.kernels.clone(), is_decode) else {
            return model.forward(batch);
        };
        let Some(arrays) = batch.replay_inputs() else {
            return model.forward(batch);
        };
        let key: Vec<Vec<usize>> = arrays.iter().map(Array::shape).collect();
        let seen = match self.steps.get(&key) {
            Some(Step::Ready(graph)) => {
                let mut outputs = graph.run(&arrays.iter().collect::<Vec<_>>())?.into_iter();
                let (Some(logits), Some(chain)) = (outputs.next(), outputs.next()) else {
                    unreachable!("a graph gives what its tape gave");
                };
                batch.set_chain(chain);
                return Ok(logits);
            }
            Some(Step::Refused) => return model.forward(batch),
            None if self.steps.len() == MAX_GRAPHS => return model.forward(batch),
            Some(Step::Seen(_)) => match self.steps.remove(&key) {
                Some(Step::Seen(tape)) => Some(tape),
                _ => None,
            },
            None => None,
        };
        // The chain is the last: it orders, and nobody reads it.
        let last = arrays.len() - 1;
        let inputs: Vec<TapeInput<'_>> = arrays
            .iter()
            .enumerate()
            .map(|(place, array)| TapeInput { array, orders_only: place == last })
            .collect();
        self.record(&kernels, (key, seen), model, batch, &inputs)
    }
}
