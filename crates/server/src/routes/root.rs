//! `/`, and what there is not.

use axum::http::StatusCode;

use crate::error::ApiError;

pub(crate) async fn root() -> &'static str {
    "SGLang is running"
}

pub(crate) async fn not_found() -> ApiError {
    not_found_error()
}

pub(crate) fn not_found_error() -> ApiError {
    ApiError::http(StatusCode::NOT_FOUND, "Not Found")
}

pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::http(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}
