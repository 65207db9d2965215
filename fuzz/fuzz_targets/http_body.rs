//! Bodies of requests, through the real router, over an engine that answers at once with the
//! prompt it got. The first byte picks the route, the second the server (its parsers; or one
//! of vectors). A request is answered, and never with 500.

#![no_main]

use std::{cell::OnceCell, sync::LazyLock};

use axum::{body::Body, http::Request};
use futures_util::FutureExt;
use libfuzzer_sys::fuzz_target;
use server::{AnswerParsers, ServerConfig};
use sglang_mlx_fuzz::{guarded, head};
use tokio::runtime::{Builder, Runtime};
use types::{
    FinishReason, GenerateReq, MatchedStop, Matryoshka, PooledModel, PooledOutput, Pooling,
};

#[path = "../../crates/server/tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub)]
mod support;

use support::{Answer, FakeEngine, Server};

/// All that read a body but those that write files: `/start_profile`, `/configure_logging`.
const ROUTES: [&str; 30] = [
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
];

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

fuzz_target!(|data: &[u8]| guarded(|| {
    let ([route, server], body) = head(data);
    let route = ROUTES[usize::from(route) % ROUTES.len()];
    SERVERS.with(|servers| {
        let index = usize::from(server) % servers.len();
        RUNTIME.block_on(async {
            let server = servers[index].get_or_init(|| new_server(index));
            post(server, route, body).await;
        });
    });
}));

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
    let pooled = |output| FakeEngine::pooled(PooledModel { pooling: Pooling::Last, output });
    match index.checked_sub(PARSERS.len()) {
        None => {
            let (reasoning, tool_call) = PARSERS[index];
            let tokenizer = support::tokenizer();
            let parsers = AnswerParsers::choose(reasoning, tool_call, None, &tokenizer);
            let parsers = parsers.expect("parsers of these names");
            let config = ServerConfig { parsers, ..support::config() };
            Server::with_config(FakeEngine::start(echo), config)
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

/// Answers with the prompt, as far as it may.
fn echo(req: &GenerateReq) -> Answer {
    let max = req.sampling_params.max_new_tokens.unwrap_or(64).min(64);
    let ids = &req.input_ids[..req.input_ids.len().min(max)];
    match ids.len() < max {
        true => {
            let ids = [ids, &[257]].concat();
            Answer::ids(&ids, FinishReason::Stop { matched: Some(MatchedStop::Token(257)) })
        }
        false => Answer::ids(ids, FinishReason::Length { length: ids.len() }),
    }
}
