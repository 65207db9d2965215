//! Words that the server, the scheduler and the engine share.
//!
//! Plain data only: no tensor, no HTTP, no clock. The server talks to the
//! engine through [`EngineMsg`] and hears back through one [`ReqEvent`] channel
//! a request; nothing else passes between them.
//!
//! Upstream: `sglang/srt/managers/io_struct.py`.

mod control;
mod date;
mod engine_handle;
mod finish;
mod grammar;
mod ids;
mod logprobs;
mod messages;
mod pooling;
mod profile;
mod sampling;
mod splitmix;
mod stats;

pub use control::{ControlMsg, PauseMode, WeightUpdate};
pub use date::Date;
pub use engine_handle::{EngineHandle, EngineStatus, StatusCell, SubmitError};
pub use finish::{FinishReason, MatchedStop};
pub use grammar::{GrammarError, NextTokens, TokenGrammar};
pub use ids::{PageId, Rid, SlotId, StateId, TokenId};
pub use logprobs::{LogprobParams, ReqLogprobs, TokenLogprobs};
pub use messages::{
    EngineMsg, EngineState, GenerateReq, ModelInfo, PrefillSharing, Reply, ReqCounts, ReqEvent,
};
pub use pooling::{Matryoshka, PooledModel, PooledOutput, Pooling};
pub use profile::{Profile, Stage, StageTimes, StepProfiles};
pub use sampling::{Penalties, SamplingError, SamplingParams, TOP_K_ALL};
pub use splitmix::{SplitMix64, splitmix64};
pub use stats::SchedulerStats;
