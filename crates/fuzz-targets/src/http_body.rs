//! Bodies of requests, through the real router, over an engine that answers at once with the
//! prompt it got. The first byte picks the route, the second the server (its parsers; or one
//! of vectors). After a line `----` comes another request: a byte for its route, and its body.
//! A request is answered, and never with 500.

use std::{cell::OnceCell, sync::LazyLock};

use axum::{body::Body, http::Request};
use futures_util::FutureExt;
use server::{AnswerParsers, ServerConfig};
use tokio::runtime::{Builder, Runtime};
use types::{Matryoshka, PooledModel, PooledOutput, Pooling};

use crate::{
    head,
    support::{self, Answer, FakeEngine, Server},
};

/// All that read a body but those that write files: `/start_profile`, `/configure_logging`.
pub const ROUTES: [&str; 32] = [
    "/generate",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/api/chat",
    "/api/generate",
    "/api/show",
    "/tokenize",
    "/detokenize",
    "/parse_function_call",
    "/separate_reasoning",
    "/vertex_generate",
    "/encode",
    "/classify",
    "/v1/embeddings",
    "/v1/score",
    "/v1/rerank",
    "/v1/classify",
    "/abort_request",
    "/flush_cache",
    "/pause_generation",
    "/continue_generation",
    "/update_weight_version",
    "/update_weights_from_disk",
    "/slow_down",
    "/set_internal_state",
    "/stop_profile",
    "/freeze_gc",
    "/open_session",
    "/close_session",
];

const MAX_REQUESTS: usize = 8;

/// Reasoning and tool-call parsers of the servers.
const PARSERS: [(&str, &str); 4] =
    [("none", "none"), ("qwen3", "qwen25"), ("gpt-oss", "gpt-oss"), ("deepseek-r1", "llama3")];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(4).build();
    runtime.expect("a runtime")
});

thread_local! {
    static SERVERS: [OnceCell<Server>; PARSERS.len() + 2] = Default::default();
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let ([route, server], rest) = head(data);
    let mut requests = requests(route, rest);
    requests.truncate(MAX_REQUESTS);
    SERVERS.with(|servers| {
        let index = usize::from(server) % servers.len();
        RUNTIME.block_on(async {
            let server = servers[index].get_or_init(|| new_server(index));
            for (route, body) in requests {
                post(server, ROUTES[usize::from(route) % ROUTES.len()], body).await;
            }
        });
    });
}

/// Routes and bodies; `rest` begins with the first body.
fn requests(route: u8, mut rest: &[u8]) -> Vec<(u8, &[u8])> {
    const BETWEEN: &[u8] = b"\n----\n";
    let mut requests = Vec::new();
    let mut route = route;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        requests.push((route, &rest[..at]));
        let ([next], body) = head(&rest[at + BETWEEN.len()..]);
        (route, rest) = (next, body);
    }
    requests.push((route, rest));
    requests
}

async fn post(server: &Server, route: &'static str, body: &[u8]) {
    let request = Request::post(route).header("content-type", "application/json");
    let answer = server.send(request.body(Body::from(body.to_vec())).expect("a request")).await;
    assert!(!answer.text.is_empty() || answer.status.is_success(), "{route}: {}", answer.status);
    let status = answer.status.as_u16();
    assert!(matches!(status, 200..=499 | 501 | 503), "{route}: {status} {}", answer.text);
    // The news of the engine would pile up.
    while server.engine.next_seen().now_or_never().is_some() {}
}

fn new_server(index: usize) -> Server {
    let pooled = |output| {
        FakeEngine::pooled(PooledModel { pooling: Pooling::Last, output, is_encoder: false })
    };
    match index.checked_sub(PARSERS.len()) {
        None => {
            let (reasoning, tool_call) = PARSERS[index];
            let tokenizer = support::tokenizer();
            let parsers = AnswerParsers::choose(reasoning, tool_call, None, &tokenizer);
            let parsers = parsers.expect("parsers of these names");
            let config = ServerConfig { parsers, ..support::config() };
            Server::with_config(FakeEngine::start(Answer::echo), config)
        }
        Some(0) => {
            Server::new(pooled(PooledOutput::Embedding { size: 2, shorter: Matryoshka::Any }))
        }
        Some(_) => {
            let labels = ["bad", "good"].map(str::to_owned).into();
            Server::new(pooled(PooledOutput::Scores { labels }))
        }
    }
}
