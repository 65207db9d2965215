//! Which requests run next, and in which pages: continuous batching as a
//! deterministic state machine.
//!
//! No tensor, no clock, no channel, no IO. Messages come in through
//! [`Scheduler::step`], batches go out through an [`Executor`], events come
//! back in a vector; any run replays from its messages.
//!
//! Upstream: `sglang/srt/managers/scheduler.py`.

mod batch;
mod decode;
mod executor;
mod grammars;
mod limits;
mod messages;
mod new_token_ratio;
mod policy;
mod pooled;
mod preemption;
mod prefill;
mod queue;
mod queue_rules;
mod req;
mod scheduler;
#[cfg(test)]
mod sim;

pub use batch::{
    BatchRow, BatchSnapshot, ForwardMode, InputId, InputLogprobs, RowPenalties, SamplingRow,
    ScheduleBatch,
};
pub use executor::{BatchOutput, Executor, RowLogprobs, RowMask};
pub use limits::{LimitsError, SchedulerLimits};
pub use mem_cache::EvictionPolicy;
pub use messages::{Progress, SchedulerEvent, SchedulerMsg};
pub use queue_rules::{PriorityRules, QueueRules, RetractionPolicy, SchedulePolicy, UnknownPolicy};
pub use req::ReqId;
pub use scheduler::Scheduler;
pub use types::PrefillSharing;
