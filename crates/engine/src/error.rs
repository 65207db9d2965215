//! What may go wrong between an option and a token.

use thiserror::Error;

use crate::{PlanError, UnknownName};

/// An engine that cannot start, or cannot go on.
#[derive(Debug, Error)]
pub enum EngineError {
    /// `--device` names what is not there.
    #[error("device `{device}` is not available here (available: {})", available.join(", "))]
    NoDevice {
        /// What was asked for.
        device: String,
        /// What there is.
        available: Vec<&'static str>,
    },
    /// An option names what does not exist.
    #[error("{option}: {source}")]
    Unknown {
        /// The flag.
        option: &'static str,
        /// What was given, and what there is.
        source: UnknownName,
    },
    /// The model cannot be read.
    #[error(transparent)]
    Load(#[from] nn::LoadError),
    /// Memory does not suffice, or its options contradict each other.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Sizes that the scheduler cannot run with.
    #[error(transparent)]
    Limits(#[from] scheduler::LimitsError),
    /// MLX refused.
    #[error(transparent)]
    Mlx(#[from] mlx::Error),
    /// The device failed again and again.
    #[error("the device fails every step: {message}")]
    Device {
        /// Of the last failure.
        message: String,
    },
    /// A bug.
    #[error("the engine thread panicked: {message}")]
    Panic {
        /// Of the panic.
        message: String,
    },
    /// The operating system gave no thread.
    #[error("the engine thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}
