//! Decode steps as CUDA graphs, one for each shape of a step. The CPU's way to fewer
//! nodes has the same name and its own file, `chained.rs`.
//!
//! A step of a new shape is recorded and launched as a graph at once. The second
//! one is recorded again, which costs the host a few ms: only if both tapes are
//! equal did the first one hold nothing that belongs to a single step. A model with
//! an operation that is no kernel of ours between the first and the last cannot be
//! replayed: it runs step by step, and the log says which operation it was.
//!
//! Upstream: `sglang/srt/model_executor/cuda_graph_runner.py`.

use std::{collections::HashMap, rc::Rc};

use attention::{ForwardBatch, ForwardMode};
use kernels::{
    Kernels, qmm_few,
    tape::{Arena, Recorder, Tape, TapeError, TapeInput},
};
use mlx::{
    Array, Result,
    cuda_graph::CudaGraph,
    device::{self, DeviceKind},
    gpu_kernel::GpuDialect,
};
use models::CausalLm;

use super::{GraphRunner, RunnerEntry, chained::Chained};

pub(super) const ENTRY: RunnerEntry = RunnerEntry { name: "compiled", new };

/// Shapes that are kept: nine numbers of rows and a dozen widths of page tables. A graph
/// costs the driver about a MiB.
const MAX_GRAPHS: usize = 128;

struct Compiled {
    /// `None` where graphs are not to be had.
    kernels: Option<Rc<Kernels>>,
    /// By the shapes of a step's inputs.
    steps: HashMap<Vec<Vec<usize>>, Step>,
    /// All of them share it: the pool's chain puts a step after the last use of what the
    /// one before it gave.
    arena: Arena,
    /// Larger steps run eagerly. More rows than the kernels take go to MLX's products:
    /// recording them would be in vain.
    max_rows: usize,
    /// The reason was logged.
    warned: bool,
}

enum Step {
    /// Launched once: the tape it was made of.
    New(CudaGraph, Tape),
    Ready(CudaGraph),
    /// Cannot be replayed.
    Refused,
}

/// On the CPU device steps become one node each.
fn new(max_rows: Option<usize>) -> Box<dyn GraphRunner> {
    match device::default() {
        Ok(DeviceKind::Cpu) => Box::new(Chained::default()),
        _ => Box::new(Compiled::new(max_rows)),
    }
}

impl Compiled {
    fn new(max_rows: Option<usize>) -> Self {
        let kernels = Kernels::here().filter(|kernels| kernels.dialect() == GpuDialect::Cuda);
        if kernels.is_none() {
            tracing::warn!("graph runner compiled needs CUDA or the CPU: using eager");
        }
        let max_rows = max_rows.map_or(qmm_few::MAX_ROWS, |rows| rows.min(qmm_few::MAX_ROWS));
        Self { kernels, steps: HashMap::new(), arena: Arena::default(), max_rows, warned: false }
    }

    fn refuse(&mut self, reason: &dyn std::fmt::Display) -> Step {
        if !self.warned {
            tracing::warn!("decode steps run eagerly, not as a graph: {reason}");
        }
        self.warned = true;
        Step::Refused
    }

    /// The step of this shape, made or checked if it is new.
    fn prepare(
        &mut self,
        known: Option<Step>,
        kernels: &Kernels,
        model: &dyn CausalLm,
        (batch, arrays): (&ForwardBatch, &[Array]),
    ) -> Result<Step> {
        let (graph, tape) = match known {
            Some(Step::New(graph, tape)) => (Some(graph), Some(tape)),
            Some(step) => return Ok(step),
            None => (None, None),
        };
        let recorded = record(kernels, model, batch, arrays)?;
        Ok(match (recorded, graph, tape) {
            (Err(error), ..) => self.refuse(&error),
            (Ok(again), Some(graph), Some(tape)) if again == tape => Step::Ready(graph),
            (Ok(_), Some(_), _) => self.refuse(&"two steps of one shape differ"),
            (Ok(tape), ..) => match tape.to_cuda_graph(&mut self.arena) {
                Ok(graph) => Step::New(graph, tape),
                Err(error) => self.refuse(&error),
            },
        })
    }
}

/// Records the step and leaves the pool as if it had not been.
fn record(
    kernels: &Kernels,
    model: &dyn CausalLm,
    batch: &ForwardBatch,
    arrays: &[Array],
) -> Result<std::result::Result<Tape, TapeError>> {
    // The chain is the last: it orders, and nobody reads it.
    let inputs: Vec<TapeInput<'_>> = arrays
        .iter()
        .enumerate()
        .map(|(place, array)| TapeInput { array, orders_only: place + 1 == arrays.len() })
        .collect();
    let before = batch.chain();
    let (logits, recorder) = kernels.record(Recorder::new(&inputs), || model.forward(batch));
    let chain = batch.chain();
    batch.set_chain(before);
    Ok(recorder.finish(&[&logits?, &chain]))
}

impl GraphRunner for Compiled {
    fn run(&mut self, model: &dyn CausalLm, batch: &ForwardBatch) -> Result<Array> {
        let may_replay = batch.mode == ForwardMode::Decode
            && batch.sampled_rows.is_none()
            && batch.input_ids.size() <= self.max_rows;
        let (Some(kernels), true) = (self.kernels.clone(), may_replay) else {
            return model.forward(batch);
        };
        let Some(arrays) = batch.replay_inputs() else {
            return model.forward(batch);
        };
        let key: Vec<Vec<usize>> = arrays.iter().map(Array::shape).collect();
        let known = self.steps.remove(&key);
        if known.is_none() && self.steps.len() == MAX_GRAPHS {
            return model.forward(batch);
        }
        let step = self.prepare(known, &kernels, model, (batch, &arrays))?;
        let logits = match &step {
            Step::New(graph, _) | Step::Ready(graph) => {
                let mut outputs = graph.run(&arrays.iter().collect::<Vec<_>>())?.into_iter();
                let (Some(logits), Some(chain)) = (outputs.next(), outputs.next()) else {
                    unreachable!("a graph gives what its tape gave");
                };
                batch.set_chain(chain);
                Ok(logits)
            }
            Step::Refused => model.forward(batch),
        };
        self.steps.insert(key, step);
        logits
    }

    fn max_graph_rows(&self) -> usize {
        if self.kernels.is_some() { self.max_rows } else { 0 }
    }
}
