//! Accepting connections, and stopping to.

use std::{
    future::{Future, IntoFuture, pending},
    io,
    time::Duration,
};

use axum::serve::{Listener, ListenerExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{sleep, timeout},
};
use types::{ControlMsg, EngineMsg};

use crate::{
    AppState, router,
    tls::{TlsIdentity, TlsListener},
};

/// For the ends of what a drain has aborted to reach their clients.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves until `shutdown` resolves, then refuses new requests, lets live ones
/// finish and tells the engine to drain. Does not wait for the engine to do so.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    state: AppState,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_on(state, listener.tap_io(|stream| set_nodelay(stream)), shutdown).await
}

/// [`serve`] over TLS.
///
/// # Errors
/// The listener failed.
pub async fn serve_tls(
    state: AppState,
    listener: TcpListener,
    identity: TlsIdentity,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_on(state, TlsListener::new(listener, identity), shutdown).await
}

async fn serve_on<L: Listener<Addr: std::fmt::Debug>>(
    state: AppState,
    listener: L,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let draining = state.clone();
    let (begin, has_begun) = oneshot::channel();
    let served = axum::serve(listener, router(state.clone()))
        .with_graceful_shutdown(async move {
            shutdown.await;
            tracing::info!(num_live = draining.num_live_requests(), "draining");
            draining.begin_drain();
            // Nobody is there any more: neither is a limit needed.
            let _ = begin.send(());
            // In a pause the live ones would never end. An engine that hangs holds up nothing
            // but this task.
            tokio::spawn(async move { draining.control(ControlMsg::Continue).await });
        })
        .into_future();
    tokio::select! {
        result = served => result?,
        () = overtime(&state, has_begun) => tracing::warn!("connections hang: closing them"),
    }
    // An engine that is gone already has nothing to drain; one that hangs, its inbox full, is waited
    // for by nobody but this task.
    tokio::spawn(async move { state.engine.send(EngineMsg::Drain).await });
    Ok(())
}

/// A token is a small packet that must not wait for the next one.
pub(crate) fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}

/// Aborts what is still live when a drain has taken too long; over when clients have had time to
/// hear of it.
async fn overtime(state: &AppState, has_begun: oneshot::Receiver<()>) {
    let Some(limit) = state.config.drain_timeout else { return pending().await };
    if has_begun.await.is_err() {
        return pending().await;
    }
    sleep(limit).await;
    tracing::warn!(num_live = state.num_live_requests(), "the drain has taken too long: aborting");
    // The inbox of an engine that hangs may be full.
    let _ = timeout(LAST_ANSWERS, state.engine.send(EngineMsg::Abort { rid: None })).await;
    sleep(LAST_ANSWERS).await;
}
