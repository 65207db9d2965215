//! `/`, and what there is not.

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{console, error::ApiError};

/// The console for browsers, a line of text for everybody else.
pub(crate) async fn root(headers: HeaderMap) -> Response {
    match console::wants_page(&headers) {
        true => console::page(),
        false => ([(header::VARY, "accept")], "SGLang is running").into_response(),
    }
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
