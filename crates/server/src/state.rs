//! What every handler shares.

use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use constrained::ReasoningMarks;
use metrics::{Metrics, StaticFacts};
use tokenizer::{ChatTemplate, Tokenizer};
use tokio::sync::{Semaphore, oneshot};
use types::{ControlMsg, EngineHandle, EngineMsg, EngineState, EngineStatus, Reply, Rid, TokenId};

use crate::{
    ServerConfig,
    error::ApiError,
    generation::Grammars,
    requests::{RequestBook, RequestLog, Requests},
    response_store::ResponseStore,
    sessions::Sessions,
    trace::Exporter,
};

/// Changes the level of the program's log; says what is wrong with an unknown one.
pub type LogLevelSetter = fn(&str) -> Result<(), String>;

/// How long an information route waits for a busy engine.
const STATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Shared by all handlers; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

/// What an [`AppState`] points to; of no use outside this crate.
#[derive(Debug)]
pub struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) engine: EngineHandle,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) chat_template: Option<ChatTemplate>,
    pub(crate) metrics: Metrics,
    pub(crate) grammars: Grammars,
    /// The model's EOS tokens and the tokenizer's.
    pub(crate) eos_token_ids: Vec<TokenId>,
    /// What reasoning is marked with, if a reasoning parser is there.
    pub(crate) reasoning_marks: Option<Arc<ReasoningMarks>>,
    /// What comes right before an answer, if a reasoning parser is there.
    pub(crate) answer_begin: Option<Arc<[TokenId]>>,
    /// The longest token: a text of `k` times as many bytes has `k` tokens.
    pub(crate) max_token_bytes: usize,
    /// Unix time of the server's start, seconds.
    pub(crate) created: u64,
    pub(crate) started: Instant,
    /// Answers of the engine since start: a sign of life.
    pub(crate) num_events: AtomicU64,
    pub(crate) text_jobs: Arc<Semaphore>,
    pub(crate) requests: Requests,
    /// Of `--enable-trace`.
    pub(crate) exporter: Option<Exporter>,
    pub(crate) responses: ResponseStore,
    pub(crate) sessions: Arc<Sessions>,
    live: Mutex<HashSet<Rid>>,
    draining: AtomicBool,
    paused: AtomicBool,
    /// Weight updates under way.
    num_updates: AtomicUsize,
    weights: RwLock<WeightNames>,
    log_level: OnceLock<LogLevelSetter>,
}

impl std::ops::Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// Joins the engine with the text side of the model.
    pub fn new(
        config: ServerConfig,
        engine: EngineHandle,
        tokenizer: Tokenizer,
        chat_template: Option<ChatTemplate>,
    ) -> Self {
        let mut eos_token_ids = engine.model().eos_token_ids.clone();
        eos_token_ids.extend(tokenizer.eos_token_id());
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        let ids = 0..tokenizer.vocab_size() as TokenId;
        let max_token_bytes = ids.map(|id| tokenizer.token_bytes(id).len()).max().unwrap_or(1);
        let mark = |text: &str| {
            tokenizer.encode(text, false).ok().filter(|ids: &Vec<TokenId>| !ids.is_empty())
        };
        let reasoning_marks = config.parsers.reasoning.and_then(|entry| {
            let (begin, end) = (mark(entry.begin)?, mark(entry.end)?.into());
            let call = entry.call.and_then(mark);
            let mut excluded = Vec::new();
            if config.enable_strict_thinking {
                excluded.clone_from(&eos_token_ids);
                // A mark of several tokens cannot be refused: each of them may be meant otherwise.
                excluded.extend(
                    call.as_ref().filter(|call: &&Vec<_>| call.len() == 1).into_iter().flatten(),
                );
                let vocab_size = engine.model().vocab_size;
                excluded.retain(|&token| (token as usize) < vocab_size);
            }
            let reopens = entry.reopens;
            Some(Arc::new(ReasoningMarks { begin, end, call, reopens, excluded }))
        });
        let answer_begin = config.parsers.reasoning.and_then(|entry| mark(entry.answer_begin));
        Self(Arc::new(Shared {
            reasoning_marks,
            answer_begin: answer_begin.map(Arc::from),
            grammars: Grammars::new(config.grammar.clone()),
            metrics: Metrics::with_options(&config.served_model_name, &config.metrics),
            eos_token_ids,
            max_token_bytes: max_token_bytes.max(1),
            created: unix_seconds() as u64,
            started: Instant::now(),
            num_events: AtomicU64::new(0),
            text_jobs: Arc::new(Semaphore::new(config.max_text_jobs.max(1))),
            responses: ResponseStore::default(),
            sessions: Arc::default(),
            live: Mutex::default(),
            draining: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            num_updates: AtomicUsize::new(0),
            weights: RwLock::new(WeightNames {
                version: config.weight_version.clone(),
                model_path: engine.model().model_path.clone(),
            }),
            log_level: OnceLock::new(),
            requests: Requests::new(RequestBook::new(config.crash_dump_folder.clone())),
            exporter: exporter(&config),
            config,
            engine,
            tokenizer,
            chat_template,
        }))
    }

    /// From now on new requests get 503; live ones go on.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
        let cell = self.engine.status_cell();
        if matches!(cell.get(), EngineStatus::Starting | EngineStatus::Running) {
            cell.set(EngineStatus::Draining);
        }
    }

    /// Lets `/configure_logging` change the level of the log.
    pub fn allow_log_level(&self, setter: LogLevelSetter) {
        self.log_level.get_or_init(|| setter);
    }

    /// Sends the lines of the request log there, from before the first request.
    pub fn log_requests(&self, log: RequestLog) {
        self.requests.log_to(log);
    }

    /// Opens files that are kept open again: somebody has moved them away to begin new ones.
    pub fn reopen_logs(&self) {
        self.requests.log().reopen();
    }

    /// Writes down what is known of requests, because the server is about to die of `reason`. A
    /// file's path, unless there is no `--crash-dump-folder` or nothing to tell.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn dump_requests(&self, reason: &str) -> io::Result<Option<PathBuf>> {
        self.requests.book.dump(reason, &self.config.shown_args())
    }

    /// Writes and sends what waits of the request log and of traces; blocks until then, or for
    /// so long each.
    pub fn flush_logs(&self, timeout: Duration) {
        self.requests.log().flush(timeout);
        if let Some(exporter) = &self.exporter {
            exporter.flush(timeout);
        }
    }

    pub(crate) fn set_log_level(&self, level: &str) -> Result<(), String> {
        match self.log_level.get() {
            Some(set) => set(level),
            None => Err("log_level cannot be changed here.".to_owned()),
        }
    }

    /// Requests that have not ended.
    pub fn num_live_requests(&self) -> usize {
        self.live().len()
    }

    /// True if a request can be taken now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Acquire) && self.engine.status() == EngineStatus::Running
    }

    /// # Errors
    /// 503 unless the engine runs and no drain has begun.
    pub(crate) fn accept_requests(&self) -> Result<(), ApiError> {
        match self.engine.status() {
            _ if self.draining.load(Ordering::Acquire) => Err(ApiError::shutting_down()),
            EngineStatus::Running => Ok(()),
            EngineStatus::Draining => Err(ApiError::shutting_down()),
            EngineStatus::Starting | EngineStatus::Stopped | EngineStatus::Failed => {
                Err(types::SubmitError::Closed.into())
            }
        }
    }

    /// Claims a name until [`Self::release`]; false if it is taken.
    pub(crate) fn claim(&self, rid: &Rid) -> bool {
        self.live().insert(rid.clone())
    }

    pub(crate) fn is_claimed(&self, rid: &Rid) -> bool {
        self.live().contains(rid)
    }

    pub(crate) fn release(&self, rid: &Rid) {
        self.live().remove(rid);
    }

    /// The live request named `name`, its batch entries and its samples.
    pub(crate) fn family_of(&self, name: &str) -> Vec<Rid> {
        let derived = |rid: &Rid| {
            let rest = rid.as_str().strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        self.live().iter().filter(|rid| derived(rid)).cloned().collect()
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashSet<Rid>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine's state; `None` if it is gone or busy for long.
    pub(crate) async fn engine_state(&self) -> Option<EngineState> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.engine.send(EngineMsg::GetState(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(STATE_TIMEOUT, ask).await.ok()?
    }

    /// Does something to the engine and waits until it is done.
    ///
    /// # Errors
    /// The engine is gone.
    pub(crate) async fn control<T>(
        &self,
        msg: impl FnOnce(Reply<T>) -> ControlMsg,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.engine.send(EngineMsg::Control(msg(reply))).await?;
        answer.await.map_err(|_| ApiError::engine_gone())
    }

    /// Whether an operator has paused generation.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(crate) fn set_paused(&self, is_paused: bool) {
        self.paused.store(is_paused, Ordering::Release);
    }

    /// From now on, until it is dropped, the engine may be busy with loading weights.
    pub(crate) fn begin_update(&self) -> Updating {
        self.num_updates.fetch_add(1, Ordering::AcqRel);
        Updating(self.clone())
    }

    /// Whether weights are being loaded, or about to.
    pub(crate) fn is_updating(&self) -> bool {
        self.num_updates.load(Ordering::Acquire) > 0
    }

    /// How answers call the weights.
    pub(crate) fn weight_version(&self) -> String {
        self.weights.read().unwrap_or_else(PoisonError::into_inner).version.clone()
    }

    pub(crate) fn set_weight_version(&self, version: String) {
        self.weights.write().unwrap_or_else(PoisonError::into_inner).version = version;
    }

    /// Where the weights are from.
    pub(crate) fn model_path(&self) -> String {
        self.weights.read().unwrap_or_else(PoisonError::into_inner).model_path.clone()
    }

    pub(crate) fn set_model_path(&self, model_path: String) {
        self.weights.write().unwrap_or_else(PoisonError::into_inner).model_path = model_path;
    }

    pub(crate) fn static_facts(&self) -> StaticFacts {
        let model = self.engine.model();
        StaticFacts {
            max_total_num_tokens: model.max_total_num_tokens,
            page_size: model.page_size,
            context_len: model.context_length,
            max_running_requests: model.max_running_requests,
        }
    }

    /// Runs blocking text work, a few jobs at a time.
    pub(crate) async fn run_text_job<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let message = "The prompt could not be processed.";
        let panicked = ApiError::http(StatusCode::INTERNAL_SERVER_ERROR, message);
        run_job(&self.text_jobs, panicked, job).await
    }
}

/// Runs blocking work, as many jobs at a time as `jobs` has permits.
///
/// # Errors
/// The job's; `panicked` if it panics.
pub(crate) async fn run_job<T: Send + 'static>(
    jobs: &Arc<Semaphore>,
    panicked: ApiError,
    job: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let permit = Arc::clone(jobs).acquire_owned().await.expect("the semaphore is never closed");
    // The permit goes with the job: a client that leaves does not end it.
    let task = tokio::task::spawn_blocking(move || {
        let result = job();
        drop(permit);
        result
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a job panicked");
        Err(panicked)
    })
}

fn exporter(config: &ServerConfig) -> Option<Exporter> {
    let exporter = config.trace.clone().map(Exporter::start)?;
    exporter.inspect_err(|error| tracing::error!(%error, "requests are not traced")).ok()
}

/// What the weights of the day are called.
#[derive(Debug)]
struct WeightNames {
    version: String,
    model_path: String,
}

/// A weight update under way.
#[derive(Debug)]
pub(crate) struct Updating(AppState);

impl Drop for Updating {
    fn drop(&mut self) {
        self.0.num_updates.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
