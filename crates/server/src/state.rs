//! What every handler shares.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use metrics::{Metrics, StaticFacts};
use parsers::reasoning::ReasoningEntry;
use tokenizer::{ChatTemplate, Tokenizer};
use tokio::sync::{Semaphore, oneshot};
use types::{EngineHandle, EngineMsg, EngineState, EngineStatus, Rid, TokenId};

use crate::{ServerConfig, error::ApiError, generation::Grammars, response_store::ResponseStore};

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
    /// What ends reasoning, if a reasoning parser is there.
    pub(crate) reasoning_end: Option<Arc<[TokenId]>>,
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
    pub(crate) responses: ResponseStore,
    live: Mutex<HashSet<Rid>>,
    draining: AtomicBool,
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
        let mark = |text: fn(&ReasoningEntry) -> &'static str| {
            let entry = config.parsers.reasoning?;
            let ids = tokenizer.encode(text(entry), false).ok();
            ids.filter(|ids| !ids.is_empty()).map(Arc::from)
        };
        Self(Arc::new(Shared {
            reasoning_end: mark(|entry| entry.end),
            answer_begin: mark(|entry| entry.answer_begin),
            metrics: Metrics::new(&config.served_model_name),
            grammars: Grammars::new(config.grammar.clone()),
            eos_token_ids,
            max_token_bytes: max_token_bytes.max(1),
            created: unix_seconds() as u64,
            started: Instant::now(),
            num_events: AtomicU64::new(0),
            text_jobs: Arc::new(Semaphore::new(config.max_text_jobs.max(1))),
            responses: ResponseStore::default(),
            live: Mutex::default(),
            draining: AtomicBool::new(false),
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

    pub(crate) fn static_facts(&self) -> StaticFacts {
        let model = self.engine.model();
        StaticFacts {
            max_total_num_tokens: model.max_total_num_tokens,
            context_len: model.context_length,
            max_running_requests: model.max_running_requests,
        }
    }

    /// Runs blocking text work, a few jobs at a time.
    pub(crate) async fn run_text_job<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let jobs = Arc::clone(&self.text_jobs);
        let permit = jobs.acquire_owned().await.expect("the semaphore is never closed");
        // The permit goes with the job: a client that leaves does not end it.
        let task = tokio::task::spawn_blocking(move || {
            let result = job();
            drop(permit);
            result
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a text job panicked");
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            Err(ApiError::http(status, "The prompt could not be processed."))
        })
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
