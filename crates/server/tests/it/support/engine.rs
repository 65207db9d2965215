//! An engine that answers from a script.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use types::{
    ControlMsg, EngineHandle, EngineMsg, EngineState, EngineStatus, FinishReason, GenerateReq,
    LogprobParams, MatchedStop, ModelInfo, PooledModel, PrefillSharing, Profile, ReqCounts,
    ReqEvent, ReqLogprobs, Rid, SchedulerStats, StatusCell, StepProfiles, TokenId, TokenLogprobs,
};

use super::{PATIENCE, bytes_as_ids};

/// What the engine says to one request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// One event for each entry.
    pub(crate) events: Vec<Vec<TokenId>>,
    /// `None`: no end; the events are all there is until the client leaves.
    pub(crate) finish: Option<FinishReason>,
    /// Drops the channel without an end.
    pub(crate) dies: bool,
}

impl Answer {
    /// `text`, a byte a token, then EOS.
    pub(crate) fn text(text: &str) -> Self {
        let mut events: Vec<_> = bytes_as_ids(text).into_iter().map(|id| vec![id]).collect();
        events.push(vec![257]);
        let finish = FinishReason::Stop { matched: Some(MatchedStop::Token(257)) };
        Self { events, finish: Some(finish), dies: false }
    }

    /// One event for each piece, then EOS.
    pub(crate) fn pieces(pieces: &[&str]) -> Self {
        let mut events: Vec<_> = pieces.iter().map(|piece| bytes_as_ids(piece)).collect();
        events.push(vec![257]);
        Self { events, ..Self::text("") }
    }

    pub(crate) fn ids(ids: &[TokenId], finish: FinishReason) -> Self {
        let events = ids.iter().map(|&id| vec![id]).collect();
        Self { events, finish: Some(finish), dies: false }
    }

    /// The prompt, as far as it may be as long.
    pub(crate) fn echo(req: &GenerateReq) -> Self {
        let max = req.sampling_params.max_new_tokens.unwrap_or(64).min(64);
        let ids = &req.input_ids[..req.input_ids.len().min(max)];
        match ids.len() < max {
            true => Self {
                events: ids.iter().map(|&id| vec![id]).chain([vec![257]]).collect(),
                ..Self::text("")
            },
            false => Self::ids(ids, FinishReason::Length { length: ids.len() }),
        }
    }

    pub(crate) fn endless(text: &str) -> Self {
        Self { finish: None, ..Self::text(text) }
    }
}

/// What the engine was told or noticed.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Generate(Box<GenerateReq>),
    Abort(Option<Rid>),
    /// The receiver of a request's events is gone.
    Closed(Rid),
    Flush,
    /// What an operator asked for, without the channels for answers.
    Control(String),
    Drain,
}

/// Requests are the same by name.
impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Generate(a), Self::Generate(b)) => a.rid == b.rid,
            (Self::Abort(a), Self::Abort(b)) => a == b,
            (Self::Closed(a), Self::Closed(b)) => a == b,
            (Self::Control(a), Self::Control(b)) => a == b,
            (Self::Flush, Self::Flush) | (Self::Drain, Self::Drain) => true,
            _ => false,
        }
    }
}

pub(crate) struct FakeEngine {
    handle: EngineHandle,
    seen: Mutex<mpsc::UnboundedReceiver<Seen>>,
}

type Script = Arc<dyn Fn(&GenerateReq) -> Answer + Send + Sync>;

impl FakeEngine {
    pub(crate) fn start(script: impl Fn(&GenerateReq) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_inbox(64, script)
    }

    pub(crate) fn with_inbox(
        capacity: usize,
        script: impl Fn(&GenerateReq) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (inbox, messages) = mpsc::channel(capacity);
        let (report, seen) = mpsc::unbounded_channel();
        let engine = Self::of(inbox, seen);
        tokio::spawn(run(messages, report, Arc::new(script)));
        engine
    }

    /// Of a model that gives vectors: the length of the prompt and its first token.
    pub(crate) fn pooled(pooled: PooledModel) -> Self {
        let (inbox, messages) = mpsc::channel(64);
        let (report, seen) = mpsc::unbounded_channel();
        let model = ModelInfo { pooled: Some(pooled), ..model_info() };
        tokio::spawn(run(messages, report, Arc::new(|_: &GenerateReq| Answer::text(""))));
        Self::of_model(inbox, seen, model)
    }

    /// Never reads its inbox, which has room for one message.
    pub(crate) fn stuck() -> (Self, mpsc::Receiver<EngineMsg>) {
        let (inbox, messages) = mpsc::channel(1);
        (Self::of(inbox, mpsc::unbounded_channel().1), messages)
    }

    fn of(inbox: mpsc::Sender<EngineMsg>, seen: mpsc::UnboundedReceiver<Seen>) -> Self {
        Self::of_model(inbox, seen, model_info())
    }

    fn of_model(
        inbox: mpsc::Sender<EngineMsg>,
        seen: mpsc::UnboundedReceiver<Seen>,
        model: ModelInfo,
    ) -> Self {
        let status = StatusCell::default();
        status.set(EngineStatus::Running);
        let handle = EngineHandle::new(inbox, status, model);
        Self { handle, seen: Mutex::new(seen) }
    }

    pub(crate) fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    pub(crate) async fn next_seen(&self) -> Seen {
        let mut seen = self.seen.lock().await;
        tokio::time::timeout(PATIENCE, seen.recv()).await.expect("news in time").expect("news")
    }

    pub(crate) async fn has_seen_nothing(&self) -> bool {
        self.seen.lock().await.try_recv().is_err()
    }

    pub(crate) async fn next_req(&self) -> GenerateReq {
        match self.next_seen().await {
            Seen::Generate(req) => *req,
            other => panic!("expected a request, saw {other:?}"),
        }
    }

    /// Waits for `wanted`, over other news.
    pub(crate) async fn wait_for(&self, wanted: Seen) {
        while self.next_seen().await != wanted {}
    }
}

fn model_info() -> ModelInfo {
    ModelInfo {
        model_path: "models/tiny".to_owned(),
        model_type: "llama".to_owned(),
        architectures: vec!["LlamaForCausalLM".to_owned()],
        context_length: 256,
        vocab_size: 260,
        max_total_num_tokens: 4096,
        page_size: 16,
        max_running_requests: 8,
        max_req_input_len: 250,
        prefill_sharing: Some(PrefillSharing { above: 256, chunk: 16 }),
        eos_token_ids: vec![257, 259],
        pooled: None,
        device: "fake".to_owned(),
    }
}

async fn run(
    mut inbox: mpsc::Receiver<EngineMsg>,
    report: mpsc::UnboundedSender<Seen>,
    script: Script,
) {
    let mut num_running = 0;
    while let Some(message) = inbox.recv().await {
        let seen = match message {
            EngineMsg::Generate { req, events } => {
                num_running += 1;
                let answer = script(&req);
                tokio::spawn(answer_one(req.as_ref().clone(), answer, events, report.clone()));
                Seen::Generate(req)
            }
            EngineMsg::Abort { rid } => Seen::Abort(rid),
            EngineMsg::FlushCache(reply) => {
                let _ = reply.send(num_running == 0);
                Seen::Flush
            }
            EngineMsg::GetState(reply) => {
                let _ = reply.send(engine_state());
                continue;
            }
            EngineMsg::Control(msg) => Seen::Control(control(msg)),
            EngineMsg::Drain => Seen::Drain,
        };
        let _ = report.send(seen);
    }
}

/// Answers as an idle engine would; a profile of one batch ends at once.
fn control(msg: ControlMsg) -> String {
    match msg {
        ControlMsg::Pause { mode, reply } => {
            let _ = reply.send(0);
            format!("pause {mode:?}")
        }
        ControlMsg::Continue(reply) => {
            let _ = reply.send(());
            "continue".to_owned()
        }
        ControlMsg::SlowDown { per_batch, reply } => {
            let _ = reply.send(());
            format!("slow down {per_batch:?}")
        }
        ControlMsg::StartProfile { num_steps, started, ended } => {
            let _ = started.send(num_steps != Some(99));
            let _ = ended.send(StepProfiles::default());
            format!("start profile {num_steps:?}")
        }
        ControlMsg::StopProfile(reply) => {
            let _ = reply.send(false);
            "stop profile".to_owned()
        }
        ControlMsg::UpdateWeights { update, reply } => {
            let _ = reply.send(match update.model_path.as_str() {
                "broken" => Err("a tensor is missing".to_owned()),
                _ => Ok(2),
            });
            format!("{update:?}")
        }
        ControlMsg::LimitRunning { max_running_requests, reply } => {
            let _ = reply.send(());
            format!("limit running {max_running_requests}")
        }
    }
}

async fn answer_one(
    req: GenerateReq,
    answer: Answer,
    events: mpsc::UnboundedSender<ReqEvent>,
    report: mpsc::UnboundedSender<Seen>,
) {
    let num_events = answer.events.len();
    let mut counts = ReqCounts {
        prompt_tokens: req.input_ids.len(),
        cached_tokens: req.input_ids.len() / 2,
        ..ReqCounts::default()
    };
    if req.pooling.is_some() {
        let event = ReqEvent {
            token_ids: Vec::new(),
            counts,
            finish_reason: Some(FinishReason::Length { length: 0 }),
            logprobs: None,
            pooled: Some(vec![req.input_ids.len() as f32, req.input_ids[0] as f32]),
        };
        let _ = events.send(event);
        return;
    }
    let is_abort = matches!(answer.finish, Some(FinishReason::Abort { .. }));
    if is_abort && answer.events.iter().all(Vec::is_empty) {
        counts = ReqCounts::default(); // as of a request that is refused
    }
    for (i, token_ids) in answer.events.into_iter().enumerate() {
        counts.completion_tokens += token_ids.len();
        let is_last = i + 1 == num_events;
        let finish_reason = answer.finish.clone().filter(|_| is_last);
        let wanted = req.logprobs.as_deref();
        let logprobs = wanted.map(|params| Box::new(logprobs(&req, params, &token_ids, i == 0)));
        if events
            .send(ReqEvent { token_ids, counts, finish_reason, logprobs, pooled: None })
            .is_err()
        {
            break;
        }
        tokio::task::yield_now().await;
    }
    if answer.finish.is_none() && !answer.dies {
        events.closed().await;
        let _ = report.send(Seen::Closed(req.rid));
    }
}

/// A token's logarithm is minus its id over 8; the most likely are 65, 66, ... at -0.5, -1, ...
fn logprobs(
    req: &GenerateReq,
    params: &LogprobParams,
    token_ids: &[TokenId],
    is_first: bool,
) -> ReqLogprobs {
    let of = |id: TokenId| -(id as f32) / 8.0;
    let position = |&id: &TokenId| TokenLogprobs {
        logprob: of(id),
        top: (1..=params.top_logprobs_num as u32).map(|i| (i as f32 * -0.5, 64 + i)).collect(),
        of_ids: params.token_ids.iter().map(|&id| of(id)).collect(),
    };
    let start = params.start_len.filter(|_| is_first);
    let input = start.map(|start| req.input_ids[start + 1..].iter().map(position).collect());
    ReqLogprobs {
        input: input.unwrap_or_default(),
        output: token_ids.iter().map(position).collect(),
    }
}

fn engine_state() -> EngineState {
    EngineState {
        scheduler: SchedulerStats {
            num_running_reqs: 3,
            num_waiting_reqs: 2,
            max_total_num_tokens: 4096,
            num_free_tokens: 3072,
            num_evictable_tokens: 512,
            num_protected_tokens: 256,
            num_private_tokens: 256,
            num_retractions: 5,
            prompt_tokens: 100,
            cached_tokens: 25,
            evicted_tokens: 7,
            new_token_ratio: 0.5,
            ..SchedulerStats::default()
        },
        last_gen_throughput: 12.5,
        weight_bytes: 1 << 30,
        kv_pool_bytes: 1 << 29,
        active_memory_bytes: 2 << 30,
        peak_memory_bytes: 3 << 30,
        profile: Some(StepProfiles {
            decode: Profile { num_steps: 7, ..Profile::default() },
            ..StepProfiles::default()
        }),
    }
}
