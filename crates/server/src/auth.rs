//! Bearer authentication.
//!
//! Upstream: `sglang/srt/utils/auth.py`.

use std::hint::black_box;

use axum::{
    Json,
    extract::{Request, State},
    http::{Method, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{AppState, console};

/// Probes and scrapers carry no key.
const OPEN_PREFIXES: [&str; 3] = ["/health", "/ready", "/metrics"];

pub(crate) async fn require_api_key(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let Some(key) = &state.config.api_key else { return next.run(request).await };
    let path = request.uri().path();
    let is_open = request.method() == Method::OPTIONS
        || OPEN_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
        || console::is_public(request.method(), request.uri(), request.headers());
    let header = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let token = header.and_then(|value| value.strip_prefix(b"Bearer "));
    if is_open || token.is_some_and(|token| same_bytes(token, key.as_bytes())) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, Json(json!({"error": "Unauthorized"}))).into_response()
}

/// Takes as long for a wrong key as for the right one of the same length.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::same_bytes;

    #[test]
    fn keys_are_equal_only_as_a_whole() {
        assert!(same_bytes(b"secret", b"secret"));
        for other in ["", "secre", "secret1", "Secret", "secres"] {
            assert!(!same_bytes(other.as_bytes(), b"secret"), "{other}");
        }
    }
}
