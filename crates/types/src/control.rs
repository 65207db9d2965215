//! What operators do to a running engine.
//!
//! Upstream: `PauseGenerationReqInput` and its neighbours in `sglang/srt/managers/io_struct.py`.

use std::time::Duration;

use crate::{Reply, StepProfiles};

/// What becomes of live requests when generation pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseMode {
    /// They end as aborted.
    Abort,
    /// They give back their pages, so the cache can be flushed, and prefill again afterwards.
    Retract,
    /// They keep their pages and go on where they were.
    InPlace,
}

/// Weights to run instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightUpdate {
    /// A folder, a GGUF file or a hub id.
    pub model_path: String,
    /// `--load-format`; `None`: as the first weights.
    pub load_format: Option<String>,
    /// Live requests end as aborted; otherwise they finish first, unless generation is paused.
    pub abort_all_requests: bool,
    /// The cache is of the old weights.
    pub flush_cache: bool,
}

/// To the engine thread, inside [`crate::EngineMsg::Control`].
#[derive(Debug)]
pub enum ControlMsg {
    /// Start no batch until [`Self::Continue`]; requests that come meanwhile wait.
    Pause {
        /// What happens to those that are live.
        mode: PauseMode,
        /// Answered when nothing runs any more, with the requests that are held.
        reply: Reply<usize>,
    },
    /// Go on after a pause. Without one nothing happens.
    Continue(Reply<()>),
    /// Sleep so long after each batch: for tests of what surrounds the server.
    SlowDown {
        /// Zero: full speed.
        per_batch: Duration,
        /// Answered at once.
        reply: Reply<()>,
    },
    /// Measure where the time of steps goes, from now on.
    StartProfile {
        /// Stops by itself after so many batches.
        num_steps: Option<usize>,
        /// False: somebody else's profile runs already.
        started: Reply<bool>,
        /// Answered when it stops.
        ended: Reply<StepProfiles>,
    },
    /// End what [`Self::StartProfile`] has begun; false if nothing has.
    StopProfile(Reply<bool>),
    /// Run other weights of the same model. Requests that come meanwhile wait.
    UpdateWeights {
        /// Which, and what happens to live requests.
        update: WeightUpdate,
        /// The requests that are held by a pause, or why nothing has changed.
        reply: Reply<Result<usize, String>>,
    },
    /// Run at most so many requests at once.
    LimitRunning {
        /// At least 1, at most what the engine was started with.
        max_running_requests: usize,
        /// Answered at once.
        reply: Reply<()>,
    },
}
