//! One sequence being generated: ids in, text out.
//!
//! A sequence owns the receiver of its tokens. Dropping it before its end
//! aborts it, and tells the engine so in a message besides: that reaches the
//! engine before any later request with the same name.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use metrics::{FinishedRequest, Metrics};
use serde_json::json;
use tokenizer::{IncrementalDecoder, StopChecker};
use tokio::sync::mpsc;
use types::{EngineMsg, FinishReason, MatchedStop, ReqCounts, ReqEvent, Rid, TokenId};

use super::{
    LogprobSpec, SequenceLogprobs, Tokens, sampling::TextOptions, stop_regex::StopRegexChecker,
};
use crate::{
    AppState,
    error::ApiError,
    requests::Received,
    sessions::Turn,
    trace::{Outcome, spans},
};

/// A step of a sequence: where the new text and the new ids begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) text_from: usize,
    pub(crate) ids_from: usize,
    /// No step of this sequence came before.
    pub(crate) is_first: bool,
}

/// What a sequence is told at its start.
pub(super) struct SequenceParts {
    pub(super) state: AppState,
    /// Already claimed.
    pub(super) rid: Rid,
    pub(super) index: usize,
    pub(super) prompt_ids: Arc<[TokenId]>,
    pub(super) text: TextOptions,
    pub(super) logprobs: Option<LogprobSpec>,
    pub(super) flags: SequenceFlags,
    pub(super) received: Arc<Received>,
    /// Its place in a session.
    pub(super) turn: Option<Turn>,
}

/// How a request is answered and counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SequenceFlags {
    pub(crate) arrived: Instant,
    pub(crate) is_streaming: bool,
    pub(crate) log_metrics: bool,
}

/// See the module.
pub(crate) struct Sequence {
    state: AppState,
    rid: Rid,
    index: usize,
    prompt_ids: Arc<[TokenId]>,
    events: mpsc::UnboundedReceiver<ReqEvent>,
    decoder: IncrementalDecoder,
    stop: StopChecker,
    stop_regex: StopRegexChecker,
    options: TextOptions,
    logprobs: Option<SequenceLogprobs>,
    flags: SequenceFlags,
    text: String,
    output_ids: Vec<TokenId>,
    /// Of the prompt; empty unless it was asked for.
    pooled: Vec<f32>,
    counts: ReqCounts,
    finish_reason: Option<FinishReason>,
    /// Reported by the last update: lengths of text and ids.
    reported: Option<(usize, usize)>,
    /// The engine has nothing more to say.
    is_engine_done: bool,
    /// Its name may be another's by now.
    is_name_free: bool,
    latencies: Latencies,
    received: Arc<Received>,
    turn: Option<Turn>,
}

#[derive(Debug, Default)]
struct Latencies {
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    /// Seconds since the token before, and how many came at once. Kept until
    /// the end: an observation takes a lock.
    between: Vec<(f32, u32)>,
    e2e: Option<f64>,
}

impl Sequence {
    pub(super) fn new(parts: SequenceParts, events: mpsc::UnboundedReceiver<ReqEvent>) -> Self {
        let SequenceParts {
            state,
            rid,
            index,
            prompt_ids,
            text: options,
            logprobs,
            flags,
            received,
            turn,
        } = parts;
        state.requests.begin(&received, &state.tokenizer);
        let skip_special_tokens = options.skip_special_tokens;
        let decoder =
            IncrementalDecoder::after_prompt(&state.tokenizer, skip_special_tokens, &prompt_ids);
        Self {
            decoder,
            stop: StopChecker::new(&options.stop, options.no_stop_trim),
            stop_regex: StopRegexChecker::new(options.stop_regex.clone()),
            counts: ReqCounts { prompt_tokens: prompt_ids.len(), ..ReqCounts::default() },
            state,
            rid,
            index,
            prompt_ids,
            events,
            options,
            logprobs: logprobs.map(SequenceLogprobs::new),
            flags,
            text: String::new(),
            output_ids: Vec::new(),
            pooled: Vec::new(),
            finish_reason: None,
            reported: None,
            is_engine_done: false,
            is_name_free: false,
            latencies: Latencies::default(),
            received,
            turn,
        }
    }

    pub(crate) fn rid(&self) -> &str {
        self.rid.as_str()
    }

    /// Position in the answer: prompt by prompt, samples in a row.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn prompt_ids(&self) -> &[TokenId] {
        &self.prompt_ids
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn output_ids(&self) -> &[TokenId] {
        &self.output_ids
    }

    /// The prompt's vector, as the model gives it.
    pub(crate) fn pooled(&self) -> &[f32] {
        &self.pooled
    }

    /// The log-probabilities that were asked for, and the tokens that they belong to.
    pub(crate) fn logprobs(&self) -> Option<(&SequenceLogprobs, Tokens<'_>)> {
        let tokens = Tokens {
            tokenizer: &self.state.tokenizer,
            prompt_ids: &self.prompt_ids,
            output_ids: &self.output_ids,
        };
        self.logprobs.as_ref().map(|logprobs| (logprobs, tokens))
    }

    /// Log-probabilities of the tokens named by [`LogprobSpec::with_token_ids`], in the place of
    /// the first generated one.
    pub(crate) fn label_logprobs(&self) -> &[f32] {
        self.logprobs.as_ref().map_or(&[], SequenceLogprobs::of_labels)
    }

    pub(crate) fn counts(&self) -> ReqCounts {
        self.counts
    }

    pub(crate) fn finish_reason(&self) -> Option<&FinishReason> {
        self.finish_reason.as_ref()
    }

    /// The stop string or token that ended it.
    pub(crate) fn matched_stop(&self) -> Option<&MatchedStop> {
        match &self.finish_reason {
            Some(FinishReason::Stop { matched }) => matched.as_ref(),
            _ => None,
        }
    }

    /// Seconds from arrival to the end, once it has ended.
    pub(crate) fn e2e_latency(&self) -> Option<f64> {
        self.latencies.e2e
    }

    /// Seconds from arrival to the first token, once it is there.
    pub(crate) fn first_token_latency(&self) -> Option<f64> {
        let first = self.latencies.first_token?;
        Some(first.duration_since(self.flags.arrived).as_secs_f64())
    }

    /// Waits until there is something to report.
    ///
    /// # Errors
    /// The engine is gone.
    pub(super) async fn advance(&mut self) -> Result<Update, ApiError> {
        loop {
            let event = self.events.recv().await.ok_or_else(ApiError::engine_gone)?;
            self.state.num_events.fetch_add(1, Ordering::Relaxed);
            let num_known = self.output_ids.len();
            self.accept(event);
            self.tell_session(num_known);
            if self.is_due() {
                return Ok(self.report());
            }
        }
    }

    fn is_due(&self) -> bool {
        let num_tokens = self.output_ids.len();
        let interval = self.options.stream_interval;
        let last = self.reported.map(|(_, ids)| ids);
        self.finish_reason.is_some() || last.is_none_or(|last| num_tokens >= last + interval)
    }

    fn report(&mut self) -> Update {
        let (text_from, ids_from) = self.reported.unwrap_or_default();
        let is_first = self.reported.is_none();
        self.reported = Some((self.text.len(), self.output_ids.len()));
        Update { text_from, ids_from, is_first }
    }

    fn accept(&mut self, event: ReqEvent) {
        // Of a request that is refused the engine counts nothing.
        self.counts = ReqCounts { prompt_tokens: self.prompt_ids.len(), ..event.counts };
        self.observe_tokens(event.token_ids.len());
        self.is_engine_done = event.finish_reason.is_some();
        let ending_token = match &event.finish_reason {
            Some(FinishReason::Stop { matched: Some(MatchedStop::Token(token)) }) => Some(*token),
            _ => None,
        };
        if let (Some(logprobs), Some(news)) = (&mut self.logprobs, event.logprobs) {
            logprobs.push(*news);
        }
        self.pooled.extend(event.pooled.into_iter().flatten());
        let num_tokens = event.token_ids.len();
        for (position, token) in event.token_ids.into_iter().enumerate() {
            self.output_ids.push(token);
            let ends_here = position + 1 == num_tokens && ending_token == Some(token);
            if ends_here && !self.options.no_stop_trim {
                break; // in the ids, not in the text
            }
            let piece = self.decoder.push(&[token]);
            let pattern = self.stop_regex.push(piece);
            let checked = self.stop.push(piece);
            self.text.push_str(&checked.text);
            if let Some(stop) = checked.matched {
                return self.end_at_stop(stop);
            }
            if let Some(pattern) = pattern {
                self.text.push_str(&self.stop.flush());
                return self.end_at_stop(pattern);
            }
        }
        if let Some(reason) = event.finish_reason {
            let rest = self.stop.push(self.decoder.flush());
            self.text.push_str(&rest.text);
            self.text.push_str(&self.stop.flush());
            self.end(reason);
        }
    }

    fn tell_session(&mut self, num_known: usize) {
        let Some(turn) = &mut self.turn else { return };
        turn.push(&self.output_ids[num_known..]);
        if let Some(reason) = &self.finish_reason {
            turn.end(!matches!(reason, FinishReason::Abort { .. }));
        }
    }

    /// At a stop string or a pattern.
    fn end_at_stop(&mut self, stop: String) {
        self.counts.completion_tokens = self.output_ids.len();
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.truncate(self.output_ids.len());
        }
        self.stop_engine();
        self.end(FinishReason::Stop { matched: Some(MatchedStop::Text(stop)) });
    }

    fn end(&mut self, reason: FinishReason) {
        self.latencies.e2e = Some(self.flags.arrived.elapsed().as_secs_f64());
        let is_abort = matches!(reason, FinishReason::Abort { .. });
        self.finish_reason = Some(reason);
        self.tell_end();
        // Before its client hears of the end. An abort that is still to come would find the next.
        if self.is_engine_done {
            self.free_name();
        }
        if !self.flags.log_metrics {
            return;
        }
        match is_abort {
            true => self.state.metrics.request.observe_aborted(),
            false => self.observe_finished(),
        }
    }

    /// For the request log and the crash dump.
    fn tell_end(&self) {
        let meta_info = || {
            json!({
                "id": self.rid.as_str(),
                "finish_reason": self.finish_reason,
                "prompt_tokens": self.counts.prompt_tokens,
                "completion_tokens": self.counts.completion_tokens,
                "cached_tokens": self.counts.cached_tokens,
                "num_retractions": self.counts.num_retractions,
                "e2e_latency": self.latencies.e2e,
            })
        };
        let output = (self.text.as_str(), self.output_ids.as_slice());
        self.state.requests.end(&self.received, output, meta_info, &self.state.tokenizer);
        self.trace();
    }

    fn trace(&self) {
        let Some(exporter) = &self.state.exporter else { return };
        let since = |time: Instant| time.duration_since(self.flags.arrived);
        let outcome = Outcome {
            model: &self.state.config.served_model_name,
            counts: self.counts,
            finish_reason: self.finish_reason.as_ref(),
            first_token: self.latencies.first_token.map(since),
            last_token: self.latencies.last_token.map(since),
            end: self.flags.arrived.elapsed(),
        };
        exporter.send(spans(&self.received, &outcome));
    }

    /// Aborts what the engine still does for this sequence.
    fn stop_engine(&mut self) {
        self.events.close();
        if !self.is_engine_done {
            self.is_engine_done = true;
            // A full inbox loses this message; the closed receiver is enough.
            let _ = self.state.engine.submit(EngineMsg::Abort { rid: Some(self.rid.clone()) });
        }
    }

    fn free_name(&mut self) {
        if !std::mem::replace(&mut self.is_name_free, true) {
            self.state.release(&self.rid);
        }
    }

    fn observe_tokens(&mut self, num_tokens: usize) {
        if num_tokens == 0 {
            return;
        }
        let now = Instant::now();
        if self.latencies.first_token.is_none() {
            self.latencies.first_token = Some(now);
            self.observe_start();
        }
        if let Some(last) = self.latencies.last_token.replace(now) {
            let seconds = now.duration_since(last).as_secs_f32();
            self.latencies.between.push((seconds, num_tokens as u32));
        }
    }

    /// Once a request, and at once: it may go on for long.
    fn observe_start(&self) {
        if let Some(seconds) = self.first_token_latency().filter(|_| self.flags.log_metrics) {
            let Metrics { request, scheduler, .. } = &self.state.metrics;
            request.observe_first_token(seconds, self.flags.is_streaming);
            scheduler.observe_queue_time(self.counts.queue_time.as_secs_f64());
        }
    }

    fn observe_finished(&self) {
        let metrics = &self.state.metrics.request;
        let is_streaming = self.flags.is_streaming;
        for &(seconds, num_tokens) in &self.latencies.between {
            metrics.observe_inter_token(seconds.into(), num_tokens as usize);
        }
        let span = self.latencies.first_token.zip(self.latencies.last_token);
        let rest = self.output_ids.len().saturating_sub(1);
        metrics.observe_finished(&FinishedRequest {
            is_streaming,
            prompt_tokens: self.counts.prompt_tokens,
            generation_tokens: self.counts.completion_tokens,
            cached_tokens: self.counts.cached_tokens,
            e2e_latency: self.latencies.e2e.unwrap_or_default(),
            time_per_output_token: span
                .filter(|_| rest > 0)
                .map(|(first, last)| last.duration_since(first).as_secs_f64() / rest as f64),
        });
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        if self.finish_reason.is_none() {
            if let Some(turn) = &mut self.turn {
                turn.end(false);
            }
            self.tell_end();
            if self.flags.log_metrics {
                self.state.metrics.request.observe_aborted();
            }
        }
        self.stop_engine();
        self.free_name();
    }
}
