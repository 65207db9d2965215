//! Starting the engine thread and knowing when it is up.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use model_loader::{Progress, TokenizerSource};
use nn::GenerationConfig;
use scheduler::Scheduler;
use types::{EngineHandle, EngineStatus, ModelInfo, StatusCell, TokenId};

use crate::{
    EngineConfig, EngineError, MemoryPlan, StepClock,
    engine_thread::{EngineThread, ThreadOptions, panic_message},
    loading::{self, Loaded},
    step_log::StepLog,
};

/// Messages that wait for the engine at most; more are answered with 503.
const INBOX_SIZE: usize = 1024;

/// What the text side of a server needs to know of the model.
#[derive(Debug, Clone)]
pub struct TextSource {
    /// Where the tokenizer comes from.
    pub tokenizer: TokenizerSource,
    /// What the model's makers sample with.
    pub generation_config: GenerationConfig,
    /// From generation_config.json, or else config.json.
    pub eos_token_ids: Vec<TokenId>,
}

/// An engine that takes requests.
#[derive(Debug)]
pub struct StartedEngine {
    /// For whoever sends requests.
    pub handle: EngineHandle,
    /// As made at start.
    pub plan: MemoryPlan,
    /// For the tokenizer and the chat template.
    pub text: TextSource,
    /// For a watchdog.
    pub clock: StepClock,
    /// What seeds requests without a seed.
    pub random_seed: u64,
    thread: JoinHandle<Result<(), EngineError>>,
}

/// What the thread reports once.
struct Ready {
    info: ModelInfo,
    plan: MemoryPlan,
    text: TextSource,
}

/// Starts the engine on a thread of its own and waits until it takes requests.
///
/// # Errors
/// Whatever keeps it from starting: device, model, memory.
pub fn start(
    config: EngineConfig,
    progress: Box<dyn Progress + Send>,
) -> Result<StartedEngine, EngineError> {
    let (sender, inbox) = tokio::sync::mpsc::channel(INBOX_SIZE);
    let status = StatusCell::default();
    let clock = StepClock::default();
    let options = ThreadOptions {
        inbox,
        status: status.clone(),
        random_seed: config.random_seed,
        log: StepLog::new(config.decode_log_interval),
        clock: clock.clone(),
        profile: config.profile,
    };
    let random_seed = config.random_seed;
    let (ready, up) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("scheduler".to_owned())
        .spawn(move || run(&config, progress.as_ref(), options, &ready))
        .map_err(EngineError::Thread)?;
    let Ok(Ready { info, plan, text }) = up.recv() else {
        let ended = join(thread);
        return Err(ended
            .err()
            .unwrap_or(EngineError::Panic { message: "no reason given".into() }));
    };
    status.set(EngineStatus::Running);
    let handle = EngineHandle::new(sender, status, info);
    Ok(StartedEngine { handle, plan, text, clock, random_seed, thread })
}

impl StartedEngine {
    /// Waits for the engine's end, and says how it ended.
    ///
    /// # Errors
    /// What it failed of.
    pub fn join(self) -> Result<(), EngineError> {
        // The engine also ends when the last handle is gone: do not be that one.
        drop(self.handle);
        join(self.thread)
    }
}

fn run(
    config: &EngineConfig,
    progress: &dyn Progress,
    options: ThreadOptions,
    ready: &mpsc::Sender<Ready>,
) -> Result<(), EngineError> {
    let loaded = catch_unwind(AssertUnwindSafe(|| loading::load(config, progress)));
    let Loaded { scheduler, plan, info, text } = loaded.unwrap_or_else(|panic| {
        Err(EngineError::Panic { message: panic_message(panic.as_ref()) })
    })?;
    if ready.send(Ready { info, plan, text }).is_err() {
        return Ok(());
    }
    let mut engine = EngineThread::new(scheduler, options);
    if config.audits {
        engine.audit_with(Scheduler::audit);
    }
    engine.run()
}

fn join(thread: JoinHandle<Result<(), EngineError>>) -> Result<(), EngineError> {
    thread
        .join()
        .unwrap_or_else(|panic| Err(EngineError::Panic { message: panic_message(panic.as_ref()) }))
}
