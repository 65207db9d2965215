//! `launch-server`: engine, HTTP, signals, and how the process ends.
//!
//! Exit codes: 0 after a drain; 1 if the engine could not start, died or hung;
//! 128 + n at a second signal n. SIGHUP opens log files again. The port is tried before the model is loaded,
//! so that a mistake there does not cost the time of a load.
//!
//! Upstream: `sglang/launch_server.py`, `sglang/srt/entrypoints/engine.py`.

use std::{
    future::{Future, pending},
    io::{IsTerminal, stdin},
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    process::{ExitCode, exit},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use engine::{EngineError, StartedEngine, StepClock};
use serde_json::Value;
use server::{
    AnswerParsers, AppState, CompletionTemplate, SamplingDefaults, ServerConfig, TlsIdentity,
};
use tokenizer::{ChatTemplate, SpecialTokens, Tokenizer};
use tokio::{
    net::TcpSocket,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use crate::{
    args::{ServerArgs, ServingArgs},
    logging,
    progress::progress,
    resolve::environment,
    text,
    text::TemplateChoice,
};

/// Connections that may wait to be accepted, as upstream's. The usual 128 are
/// too few: when the machine is busy, the kernel resets what goes beyond.
const BACKLOG: u32 = 2048;

/// How long streams may take to tell their clients that the engine is gone, the last spans to be
/// sent, and a step that nobody waits for any more to end.
const LAST_WORDS: Duration = Duration::from_secs(3);

pub(crate) fn run(args: &ServerArgs) -> Result<ExitCode> {
    logging::init(&args.engine.observability.log_level)?;
    let mut config = args.engine.resolve()?;
    config.profile = args.serving.profile;
    args.serving.check()?;
    let identity = args.serving.tls_identity()?;
    let request_log = args.requests.request_log()?;
    let metrics = args.metrics.options()?;
    let watchdog = args.engine.device.watchdog_timeout()?;
    try_port(&args.serving)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Before the load: whoever rotates logs does not wait for it.
    let hangups = runtime.block_on(async { hangups() })?;

    tracing::info!("loading {}", config.model_path);
    let model_path = config.model_path.clone();
    let engine = engine::start(config, progress())?;
    let model = engine.handle.model();
    tracing::info!("device: {}", model.device);
    tracing::info!("{}", engine.plan);

    let choice = args.serving.template_choice();
    let (tokenizer, template) = text::load(&args.engine.model, &engine.text, choice)?;
    let parsers = args.serving.parsers(template.as_ref(), &tokenizer)?;
    ensure!(
        parsers.reasoning.is_some() || !args.serving.enable_strict_thinking,
        "--enable-strict-thinking needs a --reasoning-parser, and the chat template suggests none"
    );
    let server_config =
        ServerConfig { metrics, ..server_config(args, &engine, &model_path, parsers)? };
    let state = AppState::new(server_config, engine.handle.clone(), tokenizer, template);
    state.allow_log_level(logging::set_level);
    state.log_requests(request_log);
    if let Some(hangups) = hangups {
        runtime.spawn(reopen_logs(state.clone(), hangups));
    }
    let result = runtime.block_on(serve(args, (state.clone(), identity), engine, watchdog));
    state.flush_logs(LAST_WORDS);
    // Blocking text jobs of requests that are gone must not hold up the exit.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(
    args: &ServerArgs,
    (state, identity): (AppState, Option<TlsIdentity>),
    engine: StartedEngine,
    watchdog: Duration,
) -> Result<()> {
    let serving = &args.serving;
    let listener = listen(serving)?;
    let scheme = if identity.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);
    tracing::info!("listening on {url}");

    tokio::spawn(watch(state.clone(), engine.clock.clone(), watchdog));
    let mut ended = engine_end(engine)?;
    let (stop, stopped) = oneshot::channel();
    let shutdown = shutdown(stopped)?;
    let mut server = match identity {
        Some(identity) => {
            tokio::spawn(server::serve_tls(state.clone(), listener, identity, shutdown))
        }
        None => tokio::spawn(server::serve(state.clone(), listener, shutdown)),
    };

    let get_ready = async {
        if !serving.skip_server_warmup {
            server::warmup(&state).await?;
        }
        tracing::info!("The server is fired up and ready to roll! ({url})");
        pending().await
    };
    tokio::select! {
        result = get_ready => result,
        result = &mut server => {
            result??;
            last_step(ended, serving.drain_timeout()?, watchdog).await
        }
        result = &mut ended => {
            let ended_well = result?;
            if let Err(error) = &ended_well {
                dump_requests(&state, &error.to_string());
                let _ = stop.send(());
            }
            // The server's last act is to drain the engine, whose end may be seen first.
            let served = timeout(LAST_WORDS, &mut server).await;
            ended_well?;
            let Ok(served) = served else { bail!("the engine has ended") };
            served??;
            tracing::info!("drained; good-bye");
            Ok(())
        }
    }
}

/// Waits for the engine once everybody is served. All it has to do is to end its step, so whether
/// it hangs is the watchdog's business; but whoever limits the drain wants to be gone in time.
async fn last_step(
    ended: oneshot::Receiver<Result<(), EngineError>>,
    drain_timeout: Option<Duration>,
    watchdog: Duration,
) -> Result<()> {
    let patience = drain_timeout.map_or(watchdog, |_| LAST_WORDS);
    match timeout(patience, ended).await {
        Ok(result) => result??,
        Err(_) if drain_timeout.is_some() => {
            tracing::warn!("the engine is still busy: leaving it");
            return Ok(());
        }
        Err(_) => bail!("the engine hangs: it has not ended in {:.0} s", patience.as_secs_f64()),
    }
    tracing::info!("drained; good-bye");
    Ok(())
}

/// SIGHUPs; `None`: they end the process, as those of a terminal that is closed do.
fn hangups() -> Result<Option<Signal>> {
    let is_for_logs = !stdin().is_terminal();
    Ok(is_for_logs.then(|| signal(SignalKind::hangup())).transpose()?)
}

/// Begins new files of logs at each SIGHUP.
async fn reopen_logs(state: AppState, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        state.reopen_logs();
        tracing::info!("SIGHUP: log files are opened again");
    }
}

/// Resolves when the engine's thread has ended.
fn engine_end(engine: StartedEngine) -> Result<oneshot::Receiver<Result<(), EngineError>>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("engine-end".to_owned()).spawn(move || {
        // Nobody listens any more only if the process is on its way out.
        let _ = sender.send(engine.join());
    })?;
    Ok(receiver)
}

/// Resolves at the first SIGTERM or SIGINT, or if `stopped` says so; a second
/// signal ends the process at once.
fn shutdown(stopped: oneshot::Receiver<()>) -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, first) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            }
        };
        next().await;
        tracing::info!("stopping: live requests may finish, a second signal ends them");
        let _ = sender.send(());
        let kind = next().await;
        tracing::warn!("a second signal: exiting at once");
        exit(128 + kind.as_raw_value());
    });
    Ok(async move {
        tokio::select! {
            _ = first => (),
            _ = stopped => (),
        }
    })
}

/// Ends the process if a step hangs: nothing inside the step could.
async fn watch(state: AppState, clock: StepClock, timeout: Duration) {
    let mut ticks = tokio::time::interval((timeout / 4).max(Duration::from_millis(100)));
    loop {
        ticks.tick().await;
        if let Some(elapsed) = clock.elapsed().filter(|&elapsed| elapsed > timeout) {
            tracing::error!(
                "watchdog: a step has taken {:.0} s (--watchdog-timeout {})",
                elapsed.as_secs_f64(),
                timeout.as_secs_f64()
            );
            dump_requests(&state, "a step has taken longer than --watchdog-timeout");
            exit(1);
        }
    }
}

/// `--crash-dump-folder`.
fn dump_requests(state: &AppState, reason: &str) {
    match state.dump_requests(reason) {
        Ok(Some(path)) => tracing::error!("wrote the requests to {}", path.display()),
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "cannot write the requests down"),
    }
}

fn try_port(serving: &ServingArgs) -> Result<()> {
    TcpListener::bind(address(serving)?).map(drop).with_context(|| serving.cannot_listen())
}

fn listen(serving: &ServingArgs) -> Result<tokio::net::TcpListener> {
    let address = address(serving)?;
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().with_context(|| serving.cannot_listen())
}

fn address(serving: &ServingArgs) -> Result<SocketAddr> {
    let address = (serving.host.as_str(), serving.port);
    let mut addresses =
        address.to_socket_addrs().with_context(|| format!("--host {}", serving.host))?;
    addresses.next().with_context(|| format!("--host {}", serving.host))
}

impl ServingArgs {
    fn check(&self) -> Result<()> {
        ensure!(self.stream_interval >= 1, "--stream-interval must be at least 1");
        ensure!(
            ["model", "openai"].contains(&self.sampling_defaults.as_str()),
            "--sampling-defaults {} is not one of model, openai",
            self.sampling_defaults
        );
        ensure!(
            self.chat_template.is_none() || self.hf_chat_template_name.is_none(),
            "--hf-chat-template-name picks one of the templates that --chat-template replaces"
        );
        if let Some(argument) = &self.chat_template {
            ChatTemplate::from_argument(argument, SpecialTokens::default())
                .context("--chat-template")?;
        }
        self.completion_template()?;
        self.grammar.resolve()?;
        self.drain_timeout()?;
        // Names only: there is no template yet.
        self.parsers(None, &Tokenizer::skipped()).map(drop)
    }

    fn completion_template(&self) -> Result<Option<CompletionTemplate>> {
        let template = self.completion_template.as_deref().map(CompletionTemplate::from_argument);
        template.transpose().context("--completion-template")
    }

    fn drain_timeout(&self) -> Result<Option<Duration>> {
        let timeout = self.drain_timeout.map(Duration::try_from_secs_f64);
        timeout.transpose().context("--drain-timeout")
    }

    /// What HTTPS is served with, if it is.
    fn tls_identity(&self) -> Result<Option<TlsIdentity>> {
        let files = self.ssl_keyfile.as_deref().zip(self.ssl_certfile.as_deref());
        files
            .map(|(key, certificates)| TlsIdentity::from_files(key, certificates))
            .transpose()
            .context("--ssl-keyfile, --ssl-certfile")
    }

    fn parsers(
        &self,
        template: Option<&ChatTemplate>,
        tokenizer: &Tokenizer,
    ) -> Result<AnswerParsers> {
        let (reasoning, tool_call) = (&self.reasoning_parser, &self.tool_call_parser);
        AnswerParsers::choose(reasoning, tool_call, template, tokenizer)
            .context("--reasoning-parser, --tool-call-parser")
    }

    fn template_choice(&self) -> TemplateChoice<'_> {
        TemplateChoice {
            chat_template: self.chat_template.as_deref(),
            hf_chat_template_name: self.hf_chat_template_name.as_deref(),
        }
    }

    fn cannot_listen(&self) -> String {
        format!("cannot listen on {}:{} (--host, --port)", self.host, self.port)
    }
}

fn server_config(
    args: &ServerArgs,
    engine: &StartedEngine,
    model_path: &str,
    parsers: AnswerParsers,
) -> Result<ServerConfig> {
    let serving = &args.serving;
    let mut server_args = args.as_shown(engine, model_path)?;
    let shown = |name: Option<&'static str>| name.map_or(Value::Null, Value::from);
    let reasoning = shown(parsers.reasoning.map(|entry| entry.name));
    let tool_call = shown(parsers.tool_call.map(|entry| entry.name));
    server_args.insert("reasoning_parser".to_owned(), reasoning);
    server_args.insert("tool_call_parser".to_owned(), tool_call);
    let tokenizer_path = args.engine.model.tokenizer_path.as_ref();
    let defaults = ServerConfig::default();
    Ok(ServerConfig {
        grammar: serving.grammar.resolve()?,
        host: serving.host.clone(),
        port: serving.port,
        api_key: serving.api_key.clone(),
        admin_api_key: serving.admin_api_key.clone(),
        served_model_name: serving.served_model_name.clone().unwrap_or(model_path.to_owned()),
        tokenizer_path: tokenizer_path
            .map_or_else(|| model_path.to_owned(), |path| path.display().to_string()),
        weight_version: serving.weight_version.clone(),
        enable_metrics: serving.enable_metrics,
        enable_cache_report: serving.enable_cache_report,
        incremental_streaming_output: serving.incremental_streaming_output,
        stream_interval: serving.stream_interval,
        default_sampling_seed: args.engine.deterministic_seed()?,
        stream_response_default_include_usage: serving.stream_response_default_include_usage,
        enable_strict_thinking: serving.enable_strict_thinking,
        enable_streaming_session: serving.enable_streaming_session,
        sampling_defaults: match serving.sampling_defaults.as_str() {
            "model" => text::sampling_defaults(&engine.text),
            _ => SamplingDefaults::default(),
        },
        chat_template_kwargs: crate::resolve::json_object(&serving.default_chat_template_kwargs)
            .context("--default-chat-template-kwargs")?,
        completion_template: serving.completion_template()?,
        parsers,
        health_generation: environment::health_generation()?,
        health_timeout: environment::health_timeout()?.unwrap_or(defaults.health_timeout),
        drain_timeout: serving.drain_timeout()?,
        trace: args.requests.trace_options(),
        crash_dump_folder: args.requests.crash_dump_folder.clone(),
        server_args,
        ..defaults
    })
}
