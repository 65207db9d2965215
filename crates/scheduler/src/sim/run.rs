//! Plays a workload and holds every event against the oracle.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use types::{FinishReason, GenerateReq, ReqEvent, ReqLogprobs, Rid, TokenId, TokenLogprobs};

use super::{
    fake_executor::FakeExecutor,
    oracle,
    workload::{Action, Workload},
};
use crate::{Progress, Scheduler, SchedulerEvent, SchedulerMsg};

/// More than any workload needs. Beyond it, somebody starves.
const MAX_STEPS: usize = 20_000;

/// What happened, to tell a test from a tame one.
#[derive(Debug, Clone, Default)]
pub(super) struct Coverage {
    pub(super) finished: u64,
    pub(super) stopped: u64,
    pub(super) aborted: u64,
    pub(super) refused: u64,
    /// Ended where the pool does.
    pub(super) filled_pool: u64,
    pub(super) retractions: u64,
    pub(super) cached_tokens: u64,
    pub(super) evicted_tokens: u64,
    /// Sampled and never published.
    pub(super) dropped_tokens: u64,
    pub(super) flushes: u64,
    pub(super) suppressed: u64,
    pub(super) prefill_only: u64,
    /// Steps that began with a recurrent state of the tree.
    pub(super) snapshots_read: u64,
    /// Requests that began after more cached tokens than a window.
    pub(super) past_window: u64,
    /// Steps that ended with every window page in some hand.
    pub(super) full_windows: u64,
    /// Log-probabilities of prompts.
    pub(super) input_logprobs: u64,
    /// Penalties for a token that the host had not read.
    pub(super) pending_penalties: u64,
    /// Tokens that a grammar had a say in.
    pub(super) masked: u64,
    /// Vectors of prompts.
    pub(super) pooled: u64,
    /// Running requests that made room for others.
    pub(super) preemptions: u64,
    /// Ended because the queue was full or time was up.
    pub(super) turned_away: u64,
    /// Tokens of running requests in prefill batches.
    pub(super) riders: u64,
}

impl Coverage {
    fn fields(&self) -> [u64; 22] {
        [
            self.finished,
            self.stopped,
            self.aborted,
            self.refused,
            self.filled_pool,
            self.retractions,
            self.cached_tokens,
            self.evicted_tokens,
            self.dropped_tokens,
            self.flushes,
            self.suppressed,
            self.prefill_only,
            self.snapshots_read,
            self.past_window,
            self.full_windows,
            self.input_logprobs,
            self.pending_penalties,
            self.masked,
            self.pooled,
            self.preemptions,
            self.turned_away,
            self.riders,
        ]
    }

    pub(super) fn reaches(&self, floor: &Self) -> bool {
        self.fields().iter().zip(floor.fields()).all(|(&is, at_least)| is >= at_least)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.finished += other.finished;
        self.stopped += other.stopped;
        self.aborted += other.aborted;
        self.refused += other.refused;
        self.filled_pool += other.filled_pool;
        self.retractions += other.retractions;
        self.cached_tokens += other.cached_tokens;
        self.evicted_tokens += other.evicted_tokens;
        self.dropped_tokens += other.dropped_tokens;
        self.flushes += other.flushes;
        self.suppressed += other.suppressed;
        self.prefill_only += other.prefill_only;
        self.snapshots_read += other.snapshots_read;
        self.past_window += other.past_window;
        self.full_windows += other.full_windows;
        self.input_logprobs += other.input_logprobs;
        self.pending_penalties += other.pending_penalties;
        self.masked += other.masked;
        self.pooled += other.pooled;
        self.preemptions += other.preemptions;
        self.turned_away += other.turned_away;
        self.riders += other.riders;
    }
}

/// A request as its client sees it.
#[derive(Debug, Default)]
struct Client {
    output: Vec<TokenId>,
    logprobs: ReqLogprobs,
    pooled: Option<Vec<f32>>,
    finish_reason: Option<FinishReason>,
    was_aborted: bool,
}

pub(super) struct Simulation {
    scheduler: Scheduler<FakeExecutor>,
    /// Off to see whether the executor alone finds a planted bug.
    pub(super) audits: bool,
    workload: Workload,
    clients: Vec<Client>,
    /// The requests whose last event is to come, by rid and age. More than one
    /// under a rid if the first was aborted in this very step.
    unanswered: BTreeMap<Rid, VecDeque<usize>>,
    /// Rids that a new request must not have.
    live: BTreeSet<Rid>,
    /// Requests that must be refused, in the order of their refusals.
    to_refuse: VecDeque<usize>,
    num_retractions: u64,
    num_published: u64,
    coverage: Coverage,
}

impl Simulation {
    pub(super) fn new(workload: Workload, executor: FakeExecutor) -> Self {
        let mut scheduler =
            Scheduler::new(executor, workload.limits.clone()).expect("the workload's limits");
        scheduler.set_decodes_per_piece(workload.decodes_per_piece);
        let clients = workload.reqs.iter().map(|_| Client::default()).collect();
        Self {
            scheduler,
            audits: true,
            workload,
            clients,
            unanswered: BTreeMap::new(),
            live: BTreeSet::new(),
            to_refuse: VecDeque::new(),
            num_retractions: 0,
            num_published: 0,
            coverage: Coverage::default(),
        }
    }

    pub(super) fn run(self) -> Result<Coverage, String> {
        self.run_with(|_, _| {})
    }

    /// `before_step` may meddle.
    pub(super) fn run_with(
        mut self,
        mut before_step: impl FnMut(usize, &mut Scheduler<FakeExecutor>),
    ) -> Result<Coverage, String> {
        let actions = std::mem::take(&mut self.workload.actions);
        let mut actions = actions.into_iter().peekable();
        for step in 0..MAX_STEPS {
            before_step(step, &mut self.scheduler);
            let mut due = Vec::new();
            while let Some((_, action)) = actions.next_if(|&(at, _)| at <= step) {
                due.push(action);
            }
            let progress =
                self.step(step, &due).map_err(|error| format!("step {step}: {error}"))?;
            if progress == Progress::Idle && actions.peek().is_none() {
                return self.finish();
            }
        }
        Err(format!("not done after {MAX_STEPS} steps: {:?}", self.scheduler.stats()))
    }

    fn step(&mut self, step: usize, due: &[Action]) -> Result<Progress, String> {
        let mut msgs = vec![SchedulerMsg::Time(Duration::from_secs(step as u64))];
        msgs.extend(due.iter().map(|&action| self.msg(action)));
        let mut out = Vec::new();
        let Ok(progress) = self.scheduler.step(msgs, &mut out);
        for event in out {
            self.receive(event)?;
        }
        if let Some(index) = self.to_refuse.front() {
            return Err(format!("request {index} was not refused"));
        }
        self.live = self.unanswered.keys().cloned().collect();
        if progress == Progress::Idle && !self.live.is_empty() {
            return Err(format!("idle, with {:?} live", self.live));
        }
        let cache = &self.scheduler.cache;
        let is_full = cache.num_window_pages() > 0 && cache.num_free_window_pages() == 0;
        self.coverage.full_windows += u64::from(is_full);
        if self.audits {
            self.audit()?;
        }
        Ok(progress)
    }

    fn audit(&self) -> Result<(), String> {
        self.scheduler.audit()?;
        let stats = self.scheduler.stats();
        let unused = stats.num_free_tokens + stats.num_evictable_tokens;
        if unused + stats.num_used_tokens() != stats.max_total_num_tokens {
            return Err(format!("tokens do not add up: {stats:?}"));
        }
        if self.live.iter().any(|rid| !self.scheduler.contains(rid)) {
            return Err(format!("the scheduler lost one of {:?}", self.live));
        }
        Ok(())
    }

    fn msg(&mut self, action: Action) -> SchedulerMsg {
        match action {
            Action::Send(index) => {
                let req = &self.workload.reqs[index];
                if self.is_well_formed(index) && self.live.insert(req.rid.clone()) {
                    self.unanswered.entry(req.rid.clone()).or_default().push_back(index);
                } else {
                    self.to_refuse.push_back(index);
                }
                SchedulerMsg::Generate(Box::new(req.clone()))
            }
            Action::Abort(index) => {
                let rid = self.workload.reqs[index].rid.clone();
                if self.live.remove(&rid)
                    && let Some(&index) = self.unanswered[&rid].back()
                {
                    self.clients[index].was_aborted = true;
                }
                SchedulerMsg::Abort(rid)
            }
            Action::AbortAll => {
                self.live.clear();
                for &index in self.unanswered.values().flatten() {
                    self.clients[index].was_aborted = true;
                }
                SchedulerMsg::AbortAll
            }
            Action::Flush => SchedulerMsg::FlushCache,
        }
    }

    fn receive(&mut self, event: SchedulerEvent) -> Result<(), String> {
        match event {
            SchedulerEvent::Req { rid, event } => {
                let indices =
                    self.unanswered.get_mut(&rid).ok_or_else(|| format!("{rid}: not live"))?;
                let index = indices[0];
                if event.finish_reason.is_some() {
                    indices.pop_front();
                    if indices.is_empty() {
                        self.unanswered.remove(&rid);
                    }
                }
                self.receive_event(index, event).map_err(|error| format!("{rid}: {error}"))
            }
            SchedulerEvent::Refused {
                rid,
                reason: reason @ FinishReason::Abort { status_code: 503, .. },
            } => {
                let index =
                    self.unanswered.remove(&rid).and_then(|indices| indices.front().copied());
                let index = index.ok_or_else(|| format!("{rid} turned away"))?;
                self.clients[index].finish_reason = Some(reason);
                Ok(())
            }
            SchedulerEvent::Refused { rid, reason } => {
                let index = self.to_refuse.pop_front().ok_or_else(|| format!("{rid} refused"))?;
                let is_400 = matches!(reason, FinishReason::Abort { status_code: 400, .. });
                if !is_400 || self.workload.reqs[index].rid != rid {
                    return Err(format!("request {index}: {rid} refused with {reason:?}"));
                }
                self.coverage.refused += 1;
                self.clients[index].finish_reason = Some(reason);
                Ok(())
            }
            SchedulerEvent::CacheFlushed { ok } => {
                self.coverage.flushes += u64::from(ok);
                Ok(())
            }
        }
    }

    fn is_well_formed(&self, index: usize) -> bool {
        let len = self.workload.reqs[index].input_ids.len();
        let limits = &self.workload.limits;
        len > 0 && len < limits.context_length && len <= limits.max_total_num_tokens()
    }

    fn receive_event(&mut self, index: usize, event: ReqEvent) -> Result<(), String> {
        let (client, req) = (&mut self.clients[index], &self.workload.reqs[index]);
        self.num_published += event.token_ids.len() as u64;
        client.output.extend(&event.token_ids);
        let logprobs = event.logprobs.unwrap_or_default();
        if !logprobs.output.is_empty() && logprobs.output.len() != event.token_ids.len() {
            return Err(format!("{} tokens, and {logprobs:?}", event.token_ids.len()));
        }
        client.logprobs.input.extend(logprobs.input);
        client.logprobs.output.extend(logprobs.output);
        let counts = event.counts;
        if (counts.prompt_tokens, counts.completion_tokens)
            != (req.input_ids.len(), client.output.len())
        {
            return Err(format!("{counts:?} after {} tokens", client.output.len()));
        }
        let is_cacheable = !self.workload.limits.disable_radix_cache;
        if counts.cached_tokens >= req.input_ids.len()
            || (counts.cached_tokens > 0 && !is_cacheable)
        {
            return Err(format!("{counts:?}: too much of the prompt is cached"));
        }
        if event.finish_reason.is_some() {
            self.num_retractions += counts.num_retractions as u64;
            self.coverage.cached_tokens += counts.cached_tokens as u64;
            let window = self.workload.limits.windows.map(|windows| windows.window);
            let is_past = window.is_some_and(|window| counts.cached_tokens > window);
            self.coverage.past_window += u64::from(is_past);
            client.finish_reason = event.finish_reason;
            client.pooled = event.pooled;
        } else if event.token_ids.is_empty() {
            return Err("an event without news".to_owned());
        }
        Ok(())
    }

    /// Everybody is answered; holds the answers against the oracle.
    fn finish(mut self) -> Result<Coverage, String> {
        for index in 0..self.clients.len() {
            self.check_answer(index).map_err(|error| format!("request {index}: {error}"))?;
        }
        let stats = self.scheduler.stats();
        if stats.num_used_tokens() != 0 || !self.unanswered.is_empty() {
            return Err(format!("idle, yet {:?} open, {stats:?}", self.unanswered));
        }
        if stats.num_retractions != self.num_retractions
            || stats.generation_tokens != self.num_published
            || stats.cached_tokens != self.coverage.cached_tokens
        {
            return Err(format!("{stats:?}, clients saw {:?}", self.coverage));
        }
        self.coverage.retractions = stats.num_retractions;
        self.coverage.preemptions = stats.num_preemptions;
        self.coverage.evicted_tokens = stats.evicted_tokens;
        let executor = self.scheduler.executor();
        self.coverage.riders = executor.num_riders;
        self.coverage.suppressed = executor.num_suppressed;
        self.coverage.masked = executor.num_masked;
        self.coverage.pending_penalties = executor.num_pending_penalties;
        self.coverage.snapshots_read = executor.num_snapshots_read;
        self.coverage.dropped_tokens = executor.num_sampled - self.num_published;
        Ok(self.coverage)
    }

    fn check_answer(&mut self, index: usize) -> Result<(), String> {
        let (client, req) = (&self.clients[index], &self.workload.reqs[index]);
        let limits = &self.workload.limits;
        let reason = client.finish_reason.as_ref().ok_or("never ended")?;
        let status_code = match reason {
            FinishReason::Abort { status_code, .. } => *status_code,
            _ => 200,
        };
        if status_code == 400 {
            return Ok(());
        }
        if !self.is_well_formed(index) {
            return Err(format!("malformed, yet {reason:?}"));
        }
        // The last token needs no place in the pool.
        let pool_len = limits.max_total_num_tokens() + 1;
        let (expected, expected_reason) =
            oracle::complete(req, limits.context_length.min(pool_len));
        if !expected.starts_with(&client.output) {
            return Err(format!("{:?} instead of {expected:?}", client.output));
        }
        self.coverage.input_logprobs += check_logprobs(req, client, status_code)?;
        match status_code {
            503 if limits.queue.max_queued_requests.is_some() || limits.queue.has_timeouts() => {
                self.coverage.turned_away += 1;
            }
            499 if client.was_aborted => self.coverage.aborted += 1,
            200 if client.output == expected && *reason == expected_reason => {
                if client.pooled != oracle::pooled(req) {
                    return Err(format!("{:?} is not the prompt's vector", client.pooled));
                }
                self.coverage.finished += 1;
                let len = req.input_ids.len() + expected.len();
                let fills_pool = len == pool_len && len < limits.context_length;
                self.coverage.filled_pool += u64::from(fills_pool);
                self.coverage.pooled += u64::from(client.pooled.is_some());
                self.coverage.prefill_only += u64::from(expected.is_empty());
                self.coverage.stopped += u64::from(matches!(reason, FinishReason::Stop { .. }));
            }
            _ => return Err(format!("{reason:?} instead of {expected_reason:?}")),
        }
        Ok(())
    }
}

/// As the executor numbers them; returns how many there are of the prompt.
fn check_logprobs(req: &GenerateReq, client: &Client, status_code: u16) -> Result<u64, String> {
    let numbers = |logprobs: &[TokenLogprobs]| -> Vec<usize> {
        logprobs.iter().map(|logprobs| logprobs.logprob as usize).collect()
    };
    let num_output = req.logprobs.as_ref().map_or(0, |_| client.output.len());
    let output = numbers(&client.logprobs.output);
    if output != (0..num_output).collect::<Vec<_>>() {
        return Err(format!("{num_output} tokens with log-probabilities of {output:?}"));
    }
    let start = req.logprobs.as_ref().and_then(|params| params.start_len);
    let is_due = status_code == 200 || !client.output.is_empty();
    let last = req.input_ids.len().saturating_sub(1);
    let expected: Vec<_> =
        start.filter(|_| is_due).map_or(0..0, |start| start.min(last)..last).collect();
    let input = numbers(&client.logprobs.input);
    if input != expected {
        return Err(format!("log-probabilities of the prompt at {input:?}, not {expected:?}"));
    }
    Ok(input.len() as u64)
}
