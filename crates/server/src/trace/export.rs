//! Sends spans, from a thread of its own.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::TraceOptions;

/// Spans that wait to be sent; more are dropped, and counted in the log.
const QUEUE: usize = 4096;
/// Spans in one request to the collector.
const BATCH: usize = 512;
/// Between two requests, if spans come slowly.
const EVERY: Duration = Duration::from_secs(2);
/// Of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two complaints.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

enum Msg {
    Span(Value),
    /// Send what is there, then answer.
    Flush(Sender<()>),
}

/// The way to the collector.
#[derive(Debug, Clone)]
pub(crate) struct Exporter {
    sender: SyncSender<Msg>,
    /// Spans that found no place in the queue, until the thread has heard of them.
    num_dropped: Arc<AtomicUsize>,
}

impl Exporter {
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(options: TraceOptions) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let num_dropped = Arc::new(AtomicUsize::new(0));
        let sending = Sending {
            agent: agent(),
            options,
            complained: None,
            num_lost: 0,
            num_dropped: Arc::clone(&num_dropped),
        };
        thread::Builder::new().name("traces".to_owned()).spawn(move || sending.run(&receiver))?;
        Ok(Self { sender, num_dropped })
    }

    /// Never waits: spans are dropped if there are too many.
    pub(crate) fn send(&self, spans: Vec<Value>) {
        for span in spans {
            if self.sender.try_send(Msg::Span(span)).is_err() {
                self.num_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until everything is sent, or for so long.
    pub(crate) fn flush(&self, timeout: Duration) {
        let (done, is_done) = channel();
        if self.sender.try_send(Msg::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(timeout);
        }
    }
}

struct Sending {
    agent: ureq::Agent,
    options: TraceOptions,
    complained: Option<Instant>,
    num_lost: usize,
    num_dropped: Arc<AtomicUsize>,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into()
}

impl Sending {
    fn run(mut self, inbox: &Receiver<Msg>) {
        let mut spans = Vec::new();
        let mut due = Instant::now() + EVERY;
        loop {
            let msg = inbox.recv_timeout(due.saturating_duration_since(Instant::now()));
            let mut waiting = None;
            match msg {
                Ok(Msg::Span(span)) => spans.push(span),
                Ok(Msg::Flush(done)) => waiting = Some(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.post(&mut spans),
            }
            if spans.len() >= BATCH || waiting.is_some() || Instant::now() >= due {
                self.post(&mut spans);
                due = Instant::now() + EVERY;
            }
            // Whoever asked may have stopped waiting.
            let _ = waiting.map(|done| done.send(()));
        }
    }

    fn post(&mut self, spans: &mut Vec<Value>) {
        if spans.is_empty() {
            return;
        }
        let num_spans = spans.len();
        let body = body(&self.options.service_name, std::mem::take(spans)).to_string();
        let request = self.agent.post(&self.options.url).content_type("application/json");
        let reason = match request.send(body.as_str()) {
            Ok(_) => "too many at once".to_owned(),
            Err(error) => {
                self.num_lost += num_spans;
                error.to_string()
            }
        };
        self.complain(&reason);
    }

    /// Of spans that are lost since the last complaint.
    fn complain(&mut self, reason: &str) {
        self.num_lost += self.num_dropped.swap(0, Ordering::Relaxed);
        let is_due = self.complained.is_none_or(|when| when.elapsed() >= COMPLAIN_EVERY);
        if self.num_lost > 0 && is_due {
            let url = &self.options.url;
            tracing::warn!("{} spans are lost: {url}: {reason}", self.num_lost);
            (self.num_lost, self.complained) = (0, Some(Instant::now()));
        }
    }
}

/// An `ExportTraceServiceRequest` in protobuf's JSON.
fn body(service_name: &str, spans: Vec<Value>) -> Value {
    let attribute = json!({"key": "service.name", "value": {"stringValue": service_name}});
    json!({"resourceSpans": [{
        "resource": {"attributes": [attribute]},
        "scopeSpans": [{
            "scope": {"name": "sglang-mlx", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans,
        }],
    }]})
}
