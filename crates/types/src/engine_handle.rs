//! The server's end of the engine: the inbox and a status that any thread may read.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use thiserror::Error;
use tokio::sync::mpsc;

use crate::{EngineMsg, ModelInfo};

/// Life of the engine thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EngineStatus {
    /// Loading weights, planning memory, warming up.
    Starting = 0,
    /// Serving.
    Running = 1,
    /// Finishing live requests; takes no new one.
    Draining = 2,
    /// The thread has ended, by a drain or by a failure.
    Stopped = 3,
    /// The thread failed. The process is about to exit non-zero.
    Failed = 4,
}

/// Shared, lock-free [`EngineStatus`], and a sign of life.
#[derive(Debug, Clone, Default)]
pub struct StatusCell(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    status: AtomicU8,
    num_batches: AtomicU64,
}

impl StatusCell {
    /// The status now.
    pub fn get(&self) -> EngineStatus {
        match self.0.status.load(Ordering::Acquire) {
            0 => EngineStatus::Starting,
            1 => EngineStatus::Running,
            2 => EngineStatus::Draining,
            3 => EngineStatus::Stopped,
            _ => EngineStatus::Failed,
        }
    }

    /// Called by the engine thread, and by the server when a drain begins.
    pub fn set(&self, status: EngineStatus) {
        self.0.status.store(status as u8, Ordering::Release);
    }

    /// Called by the engine thread when it has the results of a batch.
    pub fn add_batch(&self) {
        self.0.num_batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Batches computed since start.
    pub fn num_batches(&self) -> u64 {
        self.0.num_batches.load(Ordering::Relaxed)
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The inbox is full: answer 503 and let the client retry.
    #[error("the request queue is full")]
    Full,
    /// The engine takes nothing any more.
    #[error("the engine is not running")]
    Closed,
}

/// Cheap to clone; one per handler.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    inbox: mpsc::Sender<EngineMsg>,
    status: StatusCell,
    model: Arc<ModelInfo>,
}

impl EngineHandle {
    /// Joins the sending half of the inbox with the facts known after start.
    pub fn new(inbox: mpsc::Sender<EngineMsg>, status: StatusCell, model: ModelInfo) -> Self {
        Self { inbox, status, model: Arc::new(model) }
    }

    /// Hands over a message without waiting.
    pub fn submit(&self, msg: EngineMsg) -> Result<(), SubmitError> {
        self.inbox.try_send(msg).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SubmitError::Full,
            mpsc::error::TrySendError::Closed(_) => SubmitError::Closed,
        })
    }

    /// Hands over a control message, waiting for room.
    pub async fn send(&self, msg: EngineMsg) -> Result<(), SubmitError> {
        self.inbox.send(msg).await.map_err(|_| SubmitError::Closed)
    }

    /// Where the engine is in its life.
    pub fn status(&self) -> EngineStatus {
        self.status.get()
    }

    /// The cell itself, for whoever starts a drain or looks for a sign of life.
    pub fn status_cell(&self) -> &StatusCell {
        &self.status
    }

    /// Facts about model and limits.
    pub fn model(&self) -> &ModelInfo {
        &self.model
    }
}
