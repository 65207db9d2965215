//! Authentication by a key: a bearer token, or `x-api-key`.
//!
//! Upstream: `sglang/srt/utils/auth.py`.

use std::hint::black_box;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::AppState;

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
        || OPEN_PREFIXES.iter().any(|prefix| path.starts_with(prefix));
    let token = key_of(request.headers());
    if is_open || token.is_some_and(|token| same_bytes(token, key.as_bytes())) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, Json(json!({"error": "Unauthorized"}))).into_response()
}

/// Anthropic's clients send no bearer token, but a header of their own.
fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let bearer = bearer.and_then(|value| value.strip_prefix(b"Bearer "));
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()))
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
