//! Runs the scheduler's batches: page tables to tensors, model, sampler.
//!
//! A launch only builds the graph; the one host read of a step is in `wait`.
//! Tokens that the batch before has sampled go from its result into this batch's
//! input on the device, unseen by the host.
//!
//! A batch launched while another one runs is handed to the device at once if
//! the attention backend writes K and V in place. Otherwise it is handed over by
//! `wait` when that one is done: a running step holds the K/V buffers it reads,
//! and MLX's own write to a buffer that is held copies the whole pool.
//!
//! A batch with constrained rows is handed over up to its logits; its tokens follow when
//! their masks are there, and until then the device computes.
//!
//! Upstream: `sglang/srt/model_executor/model_runner.py`.

use std::{collections::BTreeMap, error::Error, iter};

use mem_cache::PageTables;
use mlx::{Array, Dtype, device::DeviceKind};
use models::CausalLm;
use scheduler::{
    BatchOutput, BatchRow, Executor, ForwardMode, InputId, RowLogprobs, RowMask, SamplingRow,
    ScheduleBatch,
};
use types::{EngineState, Stage, TokenId, WeightUpdate};

use crate::{
    EngineError,
    engine_thread::Device,
    graph_runner::GraphRunner,
    kv::Kv,
    memory_guard::{MemoryGuard, Pressure},
    pooling::PooledSums,
    reload::{Reloaded, Reloader},
    sampler::{PositionLogprobs, edit, restrict, sample},
    stage_clock::StageClock,
    step_log::LaunchedBatch,
};

/// The model on its device, with its K/V pool.
pub(crate) struct ModelRunner {
    model: Box<dyn CausalLm>,
    graph: Box<dyn GraphRunner>,
    kv: Kv,
    /// `[num_sampled]` int32, of the batch launched last.
    last_ids: Option<Array>,
    /// The batch that runs is not read yet.
    is_running: bool,
    /// Results of the batch that is built and not handed over, its tokens first.
    built: Option<Vec<Array>>,
    launched: Option<LaunchedBatch>,
    /// Of the batch read last.
    read: Option<ForwardMode>,
    clock: StageClock,
    weight_bytes: usize,
    pub(crate) reloader: Reloader,
    guard: MemoryGuard,
    /// The model gives rows to pool instead of logits.
    is_pooled: bool,
}

/// A batch on its way.
pub(crate) struct Launch {
    result: StepResult,
    mode: ForwardMode,
}

enum StepResult {
    /// Of a batch that waits for [`Executor::sample`].
    Logits {
        /// `[num_sampled, vocab]`.
        logits: Array,
        logprobs: StepLogprobs,
    },
    Tokens {
        /// `[num_sampled]` int32. Depends on every write of the batch.
        ids: Array,
        /// Rows that somebody asked for, the first ones. With none `ids` only tells
        /// when the batch is done.
        num_sampled: usize,
        logprobs: StepLogprobs,
    },
    Pooled(PooledSums),
}

/// Log-probabilities of a step, on their way.
#[derive(Default)]
struct StepLogprobs {
    /// Rows of the batch whose prompts' tokens are told, and how many of each.
    input_rows: Vec<(usize, usize)>,
    input: Option<PositionLogprobs>,
    /// Rows of the batch whose sampled token is told.
    output_rows: Vec<usize>,
    output: Option<PositionLogprobs>,
}

impl ModelRunner {
    pub(crate) fn new(
        model: Box<dyn CausalLm>,
        graph: Box<dyn GraphRunner>,
        kv: Kv,
        reloader: Reloader,
        guard: MemoryGuard,
    ) -> Self {
        Self {
            model,
            graph,
            kv,
            last_ids: None,
            is_running: false,
            built: None,
            launched: None,
            read: None,
            clock: StageClock::new(),
            weight_bytes: reloader.shape.weight_bytes,
            reloader,
            guard,
            is_pooled: false,
        }
    }

    /// For a model of [`models::load_pooled`]: no token is sampled, and texts stay whole, as
    /// encoders want them.
    pub(crate) fn pooled(mut self) -> Self {
        self.kv.set_flat_rows(0);
        Self { is_pooled: true, ..self }
    }

    /// Sizes that decode steps are padded to.
    pub(crate) fn row_buckets(&self) -> &[usize] {
        self.kv.row_buckets()
    }

    #[cfg(test)]
    pub(crate) fn kv_mut(&mut self) -> &mut Kv {
        &mut self.kv
    }

    /// Hands a batch to the device: its tokens, and what else it gives.
    fn submit(&mut self, results: &[&Array]) -> mlx::Result<()> {
        mlx::async_eval(results)?;
        nn::quant::end_step(results[0])?;
        self.clock.mark(Stage::Submit);
        self.is_running = true;
        Ok(())
    }

    /// Hands results of the batch launched last over, now or when the one that runs is done.
    fn hand_over(&mut self, results: &[&Array], fence: Option<Array>) -> mlx::Result<()> {
        self.clock.mark(Stage::Graph);
        if self.is_running && !self.kv.writes_in_place() {
            self.built = Some(results.iter().map(|&result| result.clone()).collect());
            return Ok(());
        }
        self.submit(&results.iter().copied().chain(&fence).collect::<Vec<_>>())
    }

    /// Samples the batch launched last from its logits, `[num_sampled, vocab]`.
    fn sample_rows(
        &mut self,
        logits: &Array,
        batch: &ScheduleBatch,
        masks: &[RowMask],
        mut logprobs: StepLogprobs,
    ) -> mlx::Result<StepResult> {
        let sampling: Vec<&SamplingRow> = batch.sampled_rows().map(|row| &row.sampling).collect();
        let logits = edit(logits, &sampling, self.last_ids.as_ref())?;
        let logits = restrict(logits, masks)?;
        let ids = sample(&logits, &sampling)?;
        logprobs.add_sampled(batch, (&logits, &ids), &sampling)?;
        let fence = self.kv.fence(&ids)?;
        let results: Vec<&Array> = std::iter::once(&ids).chain(logprobs.arrays()).collect();
        self.hand_over(&results, fence)?;
        self.last_ids = Some(ids.clone());
        Ok(StepResult::Tokens { ids, num_sampled: sampling.len(), logprobs })
    }

    fn launch_pooled(&mut self, batch: &ScheduleBatch, outputs: &Array) -> mlx::Result<StepResult> {
        let sums = PooledSums::new(batch, outputs)?;
        let fence = self.kv.fence(&sums.end()?)?;
        self.hand_over(&[sums.array()], fence)?;
        Ok(StepResult::Pooled(sums))
    }

    /// Logits of every token of a prompt, `[num_tokens, vocab]` f32. Takes the
    /// pool for itself: not to be used next to [`Executor::launch`].
    pub(crate) fn prompt_logits(&mut self, prompt: &[TokenId]) -> mlx::Result<Array> {
        let forward = self.kv.prompt_batch(prompt)?;
        let logits = self.graph.run(self.model.as_ref(), &forward)?.astype(Dtype::Float32)?;
        logits.eval()?;
        Ok(logits)
    }

    /// `[num_rows]` int32: the batch's tokens, then padding.
    fn input_ids(&self, batch: &ScheduleBatch) -> mlx::Result<Array> {
        let num_rows = self.kv.num_rows(batch);
        let mut host: Vec<i32> = batch
            .input_ids
            .iter()
            .filter_map(|id| match id {
                InputId::Host(id) => Some(*id as i32),
                InputId::Previous { .. } => None,
            })
            .collect();
        if host.len() == batch.num_tokens() {
            host.resize(num_rows, 0);
            return Array::from_slice(&host, &[num_rows]);
        }
        let last = self.last_ids.as_ref().expect("a batch was launched before");
        // Place of each token in `last` followed by `host`.
        let mut next_host = last.dim(0);
        let mut places: Vec<i32> = batch
            .input_ids
            .iter()
            .map(|id| match id {
                InputId::Previous { row } => *row as i32,
                InputId::Host(_) => {
                    next_host += 1;
                    next_host as i32 - 1
                }
            })
            .collect();
        let in_order = places.iter().enumerate().all(|(place, &from)| place as i32 == from);
        if host.is_empty() && in_order && num_rows == last.dim(0) {
            return Ok(last.clone());
        }
        places.resize(num_rows, 0);
        let places = Array::from_slice(&places, &[num_rows])?;
        if host.is_empty() {
            return last.take(&places, 0);
        }
        let host = Array::from_slice(&host, &[host.len()])?;
        Array::concatenate(&[last, &host], 0)?.take(&places, 0)
    }
}

impl Executor for ModelRunner {
    type Handle = Launch;
    type Error = EngineError;

    fn launch(
        &mut self,
        batch: &ScheduleBatch,
        tables: &PageTables,
    ) -> Result<Launch, EngineError> {
        self.clock.mark(Stage::Schedule);
        self.launched = Some(batch.into());
        let input_ids = self.input_ids(batch)?;
        // A batch without a sampled row still yields one logit row, for `wait`.
        let step = self.kv.step(batch, tables, input_ids)?;
        self.clock.mark(Stage::Batch);
        let all_logits = self.graph.run(self.model.as_ref(), &step.forward)?;
        if self.is_pooled {
            let result = self.launch_pooled(batch, &all_logits)?;
            return Ok(Launch { result, mode: batch.mode });
        }
        let logits = match &step.sampled {
            Some(rows) => all_logits.take(rows, 0)?,
            None => all_logits.clone(),
        };
        let mut logprobs = StepLogprobs::default();
        if let Some(rows) = &step.inputs {
            logprobs.add_inputs(batch, &all_logits.take(rows, 0)?)?;
        }
        let result = match batch.is_constrained() {
            true => {
                let results: Vec<&Array> =
                    std::iter::once(&logits).chain(logprobs.arrays()).collect();
                self.hand_over(&results, None)?;
                StepResult::Logits { logits, logprobs }
            }
            false => self.sample_rows(&logits, batch, &[], logprobs)?,
        };
        Ok(Launch { result, mode: batch.mode })
    }

    fn sample(
        &mut self,
        handle: &mut Launch,
        batch: &ScheduleBatch,
        masks: &[RowMask],
    ) -> Result<(), EngineError> {
        let StepResult::Logits { logits, logprobs } = &mut handle.result else {
            unreachable!("a constrained batch is sampled once");
        };
        let (logits, logprobs) = (logits.clone(), std::mem::take(logprobs));
        handle.result = self.sample_rows(&logits, batch, masks, logprobs)?;
        Ok(())
    }

    fn wait(&mut self, handle: Launch) -> Result<BatchOutput, EngineError> {
        self.clock.mark(Stage::Schedule);
        let output = match &handle.result {
            StepResult::Logits { .. } => {
                unreachable!("a constrained batch is sampled before it is waited for")
            }
            StepResult::Tokens { ids, num_sampled, .. } => {
                let ids: Vec<i32> = ids.to_vec()?;
                ids[..*num_sampled].iter().map(|&id| id as TokenId).collect::<Vec<_>>().into()
            }
            StepResult::Pooled(sums) => {
                BatchOutput { pooled: sums.read()?, ..BatchOutput::default() }
            }
        };
        self.clock.mark(Stage::Wait);
        self.is_running = false;
        self.read = Some(handle.mode);
        if let Some(built) = self.built.take() {
            // Only where nothing is written in place.
            self.submit(&built.iter().collect::<Vec<_>>())?;
        }
        Ok(match handle.result {
            StepResult::Tokens { logprobs, .. } => {
                BatchOutput { logprobs: logprobs.read()?, ..output }
            }
            StepResult::Logits { .. } | StepResult::Pooled(_) => output,
        })
    }
}

impl StepLogprobs {
    fn add_sampled(
        &mut self,
        batch: &ScheduleBatch,
        (logits, ids): (&Array, &Array),
        sampling: &[&SamplingRow],
    ) -> mlx::Result<()> {
        self.output = PositionLogprobs::of_sampled(logits, ids, sampling)?;
        let asks = |(place, row): (usize, &BatchRow)| {
            (row.sampled && row.sampling.logprobs.is_some()).then_some(place)
        };
        self.output_rows = batch.rows.iter().enumerate().filter_map(asks).collect();
        Ok(())
    }

    /// `logits` are those of all positions with input log-probabilities.
    fn add_inputs(&mut self, batch: &ScheduleBatch, logits: &Array) -> mlx::Result<()> {
        let (mut targets, mut params) = (Vec::new(), Vec::new());
        for (place, row) in batch.rows.iter().enumerate() {
            let Some(wanted) = &row.input_logprobs else { continue };
            let count = wanted.targets.len();
            self.input_rows.push((place, count));
            targets.extend(wanted.targets.iter().map(|&target| target as i32));
            params.extend(std::iter::repeat_n(&wanted.params, count).cloned());
        }
        let targets = Array::from_slice(&targets, &[targets.len()])?;
        self.input = Some(PositionLogprobs::new(logits, &targets, params)?);
        Ok(())
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.output.iter().chain(&self.input).flat_map(PositionLogprobs::arrays)
    }

    fn read(&self) -> mlx::Result<Vec<RowLogprobs>> {
        let read = |part: &Option<PositionLogprobs>| match part {
            Some(part) => part.read(),
            None => Ok(Vec::new()),
        };
        let mut rows: BTreeMap<usize, RowLogprobs> = BTreeMap::new();
        let mut input = read(&self.input)?.into_iter();
        for &(row, count) in &self.input_rows {
            let input = input.by_ref().take(count).collect();
            rows.insert(row, RowLogprobs { row, input, output: None });
        }
        for (&row, output) in self.output_rows.iter().zip(read(&self.output)?) {
            let nothing = RowLogprobs { row, input: Vec::new(), output: None };
            rows.entry(row).or_insert(nothing).output = Some(output);
        }
        Ok(rows.into_values().collect())
    }
}

/// One line for people. Some errors name their cause themselves.
fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| match text.ends_with(&cause) {
        true => text,
        false => format!("{text}: {cause}"),
    })
}

impl Device for ModelRunner {
    fn reset(&mut self) -> Result<(), EngineError> {
        (self.last_ids, self.built, self.is_running) = (None, None, false);
        (self.launched, self.read) = (None, None);
        // What was handed over before the failure may still run, or fail again.
        if let Err(error) = mlx::synchronize() {
            tracing::warn!("while resetting the device: {error}");
        }
        self.kv.reset()?;
        mlx::memory::clear_cache();
        Ok(())
    }

    fn update_weights(&mut self, update: &WeightUpdate) -> Result<(), String> {
        if self.is_pooled {
            return Err("the weights of an embedding model cannot be replaced".to_owned());
        }
        mlx::synchronize().map_err(|error| error.to_string())?;
        let reloaded = self.reloader.load(update, self.model.as_ref());
        // Also after a failure: what was loaded until then is gone.
        mlx::memory::clear_cache();
        let Reloaded { model, graph, weight_bytes } =
            reloaded.map_err(|error| with_causes(&error))?;
        // Graphs first: they hold the old weights.
        self.graph = graph;
        (self.model, self.weight_bytes) = (model, weight_bytes);
        (self.last_ids, self.built) = (None, None);
        mlx::memory::clear_cache();
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        self.guard.pressure(mlx::memory::active_bytes())
    }

    fn release_cache(&mut self) {
        mlx::memory::clear_cache();
    }

    fn memory(&self) -> EngineState {
        EngineState {
            weight_bytes: self.weight_bytes,
            kv_pool_bytes: self.kv.nbytes(),
            active_memory_bytes: mlx::memory::active_bytes(),
            peak_memory_bytes: mlx::memory::peak_bytes(),
            ..EngineState::default()
        }
    }

    fn take_launched(&mut self) -> Option<LaunchedBatch> {
        self.launched.take()
    }

    fn take_read(&mut self) -> Option<ForwardMode> {
        self.read.take()
    }

    fn clock(&mut self) -> &mut StageClock {
        &mut self.clock
    }

    fn runs_on_submit(&self) -> bool {
        // MLX holds the caller back while the CPU's queue is full.
        self.reloader.platform.entry.kind == DeviceKind::Cpu
    }
}
