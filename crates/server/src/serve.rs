//! Accepting connections, and stopping to.

use std::{future::Future, io};

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use types::EngineMsg;

use crate::{AppState, router};

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
    let draining = state.clone();
    let listener = listener.tap_io(|stream| {
        // A token is a small packet that must not wait for the next one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    axum::serve(listener, router(state.clone()))
        .with_graceful_shutdown(async move {
            shutdown.await;
            tracing::info!(num_live = draining.num_live_requests(), "draining");
            draining.begin_drain();
        })
        .await?;
    // An engine that is gone already has nothing to drain.
    let _ = state.engine.send(EngineMsg::Drain).await;
    Ok(())
}
