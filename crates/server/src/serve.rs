//! Accepting connections, and stopping to.

use std::{future::Future, io, time::Duration};

use axum::serve::{Listener, ListenerExt};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use types::{ControlMsg, EngineMsg};

use crate::{
    AppState, router,
    tls::{TlsIdentity, TlsListener},
};

/// Serves until `shutdown` resolves, then refuses new requests, lets live ones
/// finish and tells the engine to drain. Returns when all of that is done.
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
    axum::serve(listener, router(state.clone()))
        .with_graceful_shutdown(async move {
            shutdown.await;
            tracing::info!(num_live = draining.num_live_requests(), "draining");
            draining.begin_drain();
            // In a pause the live ones would never end. Nobody waits for the answer.
            let _ = draining.control(ControlMsg::Continue).await;
            if let Some(timeout) = draining.config.drain_timeout {
                tokio::spawn(end_after(draining, timeout));
            }
        })
        .await?;
    // An engine that is gone already has nothing to drain.
    let _ = state.engine.send(EngineMsg::Drain).await;
    Ok(())
}

/// A token is a small packet that must not wait for the next one.
pub(crate) fn set_nodelay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
}

/// Aborts what is still live, unless the process ends before.
async fn end_after(state: AppState, timeout: Duration) {
    sleep(timeout).await;
    tracing::warn!(num_live = state.num_live_requests(), "the drain has taken too long: aborting");
    let _ = state.engine.send(EngineMsg::Abort { rid: None }).await;
}
