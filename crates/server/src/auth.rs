//! Keys: which routes ask for one, and for which.
//!
//! A route is open to clients (`--api-key`) or changes the server (`--admin-api-key`). Where only
//! one of the keys is configured, administrators' routes ask for that one; with both, the clients'
//! key does not open them. Upstream's third level, `ADMIN_FORCE`, is on none of its routes.
//!
//! Upstream: `sglang/srt/utils/auth.py`.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::{AppState, console};

/// Probes and scrapers carry no key.
const OPEN_PREFIXES: [&str; 3] = ["/health", "/ready", "/metrics"];

/// Where Anthropic's clients put their key.
const X_API_KEY: &str = "x-api-key";

/// Around clients' routes: upstream's `NORMAL`.
pub(crate) async fn require_api_key(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    check(state.config.api_key.as_deref(), request, next).await
}

/// Around administrators' routes: upstream's `ADMIN_OPTIONAL`.
pub(crate) async fn require_admin_key(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let config = &state.config;
    let key = config.admin_api_key.as_deref().or(config.api_key.as_deref());
    check(key, request, next).await
}

async fn check(key: Option<&str>, request: Request, next: Next) -> Response {
    let may_pass = |key: &str| {
        is_open(&request) || given_keys(request.headers()).any(|given| is_same(given, key))
    };
    match key.is_none_or(may_pass) {
        true => next.run(request).await,
        false => refusal(StatusCode::UNAUTHORIZED, "Unauthorized"),
    }
}

fn is_open(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::OPTIONS
        || OPEN_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
        || console::is_public(request.method(), request.uri(), request.headers())
}

/// The bearer token, whose scheme's case does not matter, and Anthropic's header.
fn given_keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    });
    let x_api_key = headers.get(X_API_KEY).map(|value| value.as_bytes());
    bearer.into_iter().chain(x_api_key)
}

fn refusal(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"error": error}))).into_response()
}

/// Takes as long for a wrong key as for the right one of the same length.
fn is_same(given: &[u8], key: &str) -> bool {
    given.ct_eq(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn keys_are_equal_only_as_a_whole() {
        assert!(is_same(b"secret", "secret"));
        for other in ["", "secre", "secret1", "Secret", "secres"] {
            assert!(!is_same(other.as_bytes(), "secret"), "{other}");
        }
    }

    #[test]
    fn a_key_comes_in_either_header() {
        let keys = |name: &'static str, value: &'static str| {
            let headers =
                HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            given_keys(&headers).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(keys("authorization", "bEARER k"), [b"k"]);
        assert_eq!(keys("x-api-key", "k"), [b"k"]);
        for (name, value) in [("authorization", "Basic k"), ("authorization", "k"), ("key", "k")] {
            assert!(keys(name, value).is_empty(), "{name}: {value}");
        }
    }
}
