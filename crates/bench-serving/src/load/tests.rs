//! Against a fake server on pipes in memory, on a clock that only moves while
//! all wait: every time below is exact but for the timer's millisecond.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, future::BoxFuture, stream};
use serde_json::{Value, json};
use tokio::{
    io::DuplexStream,
    sync::{Mutex, mpsc},
    time::sleep,
};

use super::*;
use crate::{BaseUrl, Connect, Metrics, dataset::Turn};

const MS: Duration = Duration::from_millis(1);
const PREFILL: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(20);

/// Connects by handing one end of a pipe to the server.
struct Pipes(mpsc::UnboundedSender<DuplexStream>);

impl Connect for Pipes {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn crate::connect::Io>>> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let sent = self.0.send(theirs).map_err(io::Error::other);
        Box::pin(async move { sent.map(|()| Box::new(ours) as Box<dyn crate::connect::Io>) })
    }
}

struct PipeListener(mpsc::UnboundedReceiver<DuplexStream>);

impl axum::serve::Listener for PipeListener {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        match self.0.recv().await {
            Some(pipe) => (pipe, ([0, 0, 0, 0], 0).into()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([0, 0, 0, 0], 0).into())
    }
}

#[derive(Default)]
struct Fake {
    bodies: Mutex<Vec<Value>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

type Shared = State<Arc<Fake>>;

fn client() -> (Client, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let router = Router::new()
        .route("/v1/models", get(|| async { Json(json!({"data": [{"id": "tiny"}]})) }))
        .route("/generate", post(native))
        .route("/v1/completions", post(openai))
        .route("/v1/chat/completions", post(openai))
        .with_state(Arc::clone(&fake));
    let (pipes, accepted) = mpsc::unbounded_channel();
    tokio::spawn(axum::serve(PipeListener(accepted), router).into_future());
    let url: BaseUrl = "http://memory".parse().unwrap();
    (Client::new(Arc::new(Pipes(pipes)), url, Some("key".to_owned())), fake)
}

fn events(fake: Arc<Fake>, events: Vec<(Duration, String)>) -> Response {
    let most = fake.running.fetch_add(1, Ordering::SeqCst) + 1;
    fake.most.fetch_max(most, Ordering::SeqCst);
    let end = stream::once(async move {
        fake.running.fetch_sub(1, Ordering::SeqCst);
        "data: [DONE]\n\n".to_owned()
    });
    let body = stream::iter(events).then(|(pause, event)| async move {
        sleep(pause).await;
        format!("data: {event}\n\n")
    });
    let body = body.chain(end).map(Ok::<_, io::Error>);
    ([("content-type", "text/event-stream; charset=utf-8")], Body::from_stream(body))
        .into_response()
}

/// One token after `PREFILL`, then two at a time every two `STEP`s; whole text.
async fn native(State(fake): Shared, Json(body): Json<Value>) -> Response {
    fake.bodies.lock().await.push(body.clone());
    let length = body["sampling_params"]["max_new_tokens"].as_u64().unwrap() as usize;
    let prompt = body["input_ids"].as_array().unwrap();
    if prompt[0] == 13 {
        return (
            axum::http::StatusCode::BAD_REQUEST,
            Json(json!({"error": {"message": "bad luck"}})),
        )
            .into_response();
    }
    let counts = (1..length).step_by(2).chain([length]);
    let chunks = counts.map(|count| {
        let pause = if count == 1 { PREFILL } else { 2 * STEP };
        let meta = json!({"prompt_tokens": prompt.len(), "completion_tokens": count,
            "cached_tokens": 1, "finish_reason": null});
        let ids: Vec<_> = (0..count).collect();
        (
            pause,
            json!({"text": "x".repeat(count), "output_ids": ids, "meta_info": meta}).to_string(),
        )
    });
    let chunks = chunks.collect();
    events(fake, chunks)
}

/// A chunk a token, and the usage in one without a choice.
async fn openai(State(fake): Shared, Json(body): Json<Value>) -> Response {
    fake.bodies.lock().await.push(body.clone());
    let is_chat = body.get("messages").is_some();
    let length =
        body[if is_chat { "max_completion_tokens" } else { "max_tokens" }].as_u64().unwrap();
    let usage = json!({"prompt_tokens": 9, "completion_tokens": length});
    if body["stream"] == false {
        sleep(PREFILL).await;
        let choice = json!({"text": "ab", "message": {"content": "ab"}});
        return Json(json!({"choices": [choice], "usage": usage})).into_response();
    }
    let mut chunks: Vec<_> = (0..length)
        .map(|index| {
            let choice =
                if is_chat { json!({"delta": {"content": "y"}}) } else { json!({"text": "y"}) };
            let pause = if index == 0 { PREFILL } else { STEP };
            (pause, json!({"choices": [choice]}).to_string())
        })
        .collect();
    chunks.push((Duration::ZERO, json!({"choices": [], "usage": usage}).to_string()));
    events(fake, chunks)
}

fn shape(backend: &str) -> RequestShape {
    RequestShape {
        backend: backend.parse().unwrap(),
        model: "tiny".to_owned(),
        stream: true,
        ignore_eos: true,
        extra_request_body: json!({}),
    }
}

fn all_at_once() -> Load {
    Load { request_rate: f64::INFINITY, max_concurrency: None, seed: 0 }
}

fn turn(prompt: &[u32], output_len: usize) -> Turn {
    Turn { prompt: prompt.to_vec(), output_len }
}

fn near(actual: f64, expected_ms: f64) -> bool {
    (actual - expected_ms).abs() <= 2.0
}

#[tokio::test(start_paused = true)]
async fn native_timings_are_those_of_the_server() {
    let (client, fake) = client();
    let conversations = vec![vec![turn(&[1, 2, 3], 5)], vec![turn(&[4, 5], 5)]];
    let recording = apply(&all_at_once(), &client, &shape("sglang"), conversations, |_| ()).await;
    let metrics = Metrics::of(&recording);
    assert_eq!((metrics.completed, metrics.failed), (2, 0));
    assert_eq!((metrics.total_input_tokens, metrics.total_output_tokens), (5, 10));
    assert_eq!(metrics.total_cached_tokens, 2);
    assert!(near(metrics.ttft.mean, 100.0), "{:?}", metrics.ttft);
    assert!(near(metrics.itl.median, 20.0), "{:?}", metrics.itl);
    assert!(near(metrics.tpot.p99, 20.0), "{:?}", metrics.tpot);
    assert!(near(metrics.e2e_latency.max, 180.0), "{:?}", metrics.e2e_latency);
    assert!((metrics.output_throughput - 10.0 / 0.18).abs() < 1.0);
    assert_eq!(metrics.max_concurrent_requests, 2);
    assert_eq!(recording.outputs[0].text, "xxxxx");
    assert_eq!(fake.most.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn openai_timings_are_those_of_the_server() {
    for backend in ["vllm", "sglang-oai-chat"] {
        let (client, _) = client();
        let conversations = vec![vec![turn(&[1, 2, 3], 4)]];
        let recording =
            apply(&all_at_once(), &client, &shape(backend), conversations, |_| ()).await;
        let output = &recording.outputs[0];
        assert_eq!((&output.error, output.prompt_len, output.output_len), (&None, 9, 4));
        let metrics = Metrics::of(&recording);
        assert!(near(metrics.ttft.mean, 100.0) && near(metrics.itl.mean, 20.0), "{metrics:?}");
        assert_eq!(output.itls().count(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_stream_all_comes_at_the_end() {
    let (client, _) = client();
    let shape = RequestShape { stream: false, ..shape("sglang-oai") };
    let recording = apply(&all_at_once(), &client, &shape, vec![vec![turn(&[1], 7)]], |_| ()).await;
    let metrics = Metrics::of(&recording);
    assert_eq!(metrics.total_output_tokens, 7);
    assert!(near(metrics.ttft.mean, 100.0) && metrics.itl.max == 0.0, "{metrics:?}");
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited() {
    let (client, fake) = client();
    let load = Load { max_concurrency: Some(2), ..all_at_once() };
    let conversations = (0..6).map(|id| vec![turn(&[id], 5)]).collect();
    let recording = apply(&load, &client, &shape("sglang"), conversations, |_| ()).await;
    let metrics = Metrics::of(&recording);
    assert_eq!((fake.most.load(Ordering::SeqCst), metrics.max_concurrent_requests), (2, 2));
    assert!(near(metrics.duration * 1e3, 3.0 * 180.0), "{}", metrics.duration);
    // Waiting for a place is no part of a request.
    assert!(near(metrics.e2e_latency.max, 180.0) && near(metrics.concurrency, 2.0));
}

#[tokio::test(start_paused = true)]
async fn turns_follow_each_other_and_remember() {
    let (client, fake) = client();
    let conversation = vec![turn(&[1, 2], 3), turn(&[3], 2)];
    let recording =
        apply(&all_at_once(), &client, &shape("sglang"), vec![conversation.clone()], |_| ()).await;
    assert_eq!(recording.outputs.len(), 2);
    assert!(recording.outputs[1].start >= recording.outputs[0].latency);
    assert_eq!(fake.bodies.lock().await[1]["input_ids"], json!([1, 2, 0, 1, 2, 3]));

    let recording =
        apply(&all_at_once(), &client, &shape("vllm-chat"), vec![conversation], |_| ()).await;
    assert_eq!(Metrics::of(&recording).completed, 2);
    let bodies = fake.bodies.lock().await;
    assert_eq!(bodies[3]["messages"][1], json!({"role": "assistant", "content": "yyy"}));
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_end_a_conversation() {
    let (client, _) = client();
    let conversations = vec![vec![turn(&[13], 3), turn(&[1], 3)], vec![turn(&[1], 3)]];
    let recording = apply(&all_at_once(), &client, &shape("sglang"), conversations, |_| ()).await;
    let errors: Vec<_> = recording.outputs.iter().map(|output| output.error.as_deref()).collect();
    assert_eq!(
        errors,
        [Some("HTTP 400: bad luck"), Some("not sent: an earlier turn has failed"), None]
    );
    let metrics = Metrics::of(&recording);
    assert_eq!((metrics.completed, metrics.failed), (1, 2));
    assert!(near(metrics.ttft.mean, 100.0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_fails_requests_only() {
    let (pipes, accepted) = mpsc::unbounded_channel();
    drop(accepted);
    let client = Client::new(Arc::new(Pipes(pipes)), "http://gone".parse().unwrap(), None);
    let recording =
        apply(&all_at_once(), &client, &shape("sglang"), vec![vec![turn(&[1], 3)]], |_| ()).await;
    let error = recording.outputs[0].error.as_deref().unwrap();
    assert!(error.starts_with("cannot connect: "), "{error}");
    assert!(client.first_model().await.unwrap_err().to_string().starts_with("/v1/models of"));
}

#[tokio::test(start_paused = true)]
async fn the_server_names_its_model() {
    let (client, _) = client();
    assert_eq!(client.first_model().await.unwrap(), "tiny");
}

#[test]
fn arrivals_are_a_poisson_process() {
    let load = Load { request_rate: 50.0, max_concurrency: None, seed: 7 };
    let arrivals = load.arrivals(20_001);
    assert_eq!(arrivals, load.arrivals(20_001));
    assert_ne!(arrivals, Load { seed: 8, ..load }.arrivals(20_001));
    assert_eq!(arrivals[0], Duration::ZERO);
    let gaps: Vec<_> = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let mean = gaps.iter().sum::<f64>() / 20_000.0;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 20_000.0;
    // An exponential distribution is as wide as its mean.
    assert!((mean * 50.0 - 1.0).abs() < 0.03, "{mean}");
    assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{variance}");
    assert!(all_at_once().arrivals(5).iter().all(Duration::is_zero));
    assert!(arrivals[20_000] > 1000 * MS);
}
