//! What goes into a step and what comes out.

use std::time::Duration;

use types::{FinishReason, GenerateReq, ReqEvent, Rid};

/// To the scheduler.
#[derive(Debug, Clone)]
pub enum SchedulerMsg {
    /// Queue a request.
    Generate(Box<GenerateReq>),
    /// End a request now. Unknown ones are ignored: it may just have finished.
    Abort(Rid),
    /// End every live request.
    AbortAll,
    /// Empty the radix tree, if no request is live, or in a pause if none has pages.
    FlushCache,
    /// Time since some fixed start, for the rules that go by it. Nothing else tells the
    /// scheduler the time.
    Time(Duration),
}

/// From the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum SchedulerEvent {
    /// News of a live request; its last if `finish_reason` is set.
    Req {
        /// Whose.
        rid: Rid,
        /// Tokens, counts, end.
        event: ReqEvent,
    },
    /// A `Generate` that never became live. If its rid is live, that is another
    /// request, which goes on.
    Refused {
        /// As given.
        rid: Rid,
        /// An abort with a 400, or with a 503 if the queue is full.
        reason: FinishReason,
    },
    /// Answers a `FlushCache`; these come in the order of the questions.
    CacheFlushed {
        /// False if requests were live.
        ok: bool,
    },
}

/// Whether to call again without a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is work.
    Busy,
    /// Nothing to do until a message comes.
    Idle,
}
