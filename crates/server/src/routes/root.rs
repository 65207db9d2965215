//! `/`, and what there is not.

use axum::{
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
};

use crate::{
    console,
    error::ApiError,
    route_table::{is_served, reason_left_out},
};

/// The console for browsers, a line of text for everybody else.
pub(crate) async fn root(headers: HeaderMap) -> Response {
    match console::wants_page(&headers) {
        true => console::page(),
        false => ([(header::VARY, "accept")], "SGLang is running").into_response(),
    }
}

/// 501 for what SGLang serves and this server does not, 404 for what nobody does. As upstream,
/// a slash too many at the end of a path is a redirect, which keeps method and body.
pub(crate) async fn not_found(uri: Uri) -> Result<Redirect, ApiError> {
    if let Some(location) = without_slash(&uri) {
        return Ok(Redirect::temporary(&location));
    }
    Err(match reason_left_out(uri.path()) {
        Some(reason) => {
            let message = format!("{} is not served here: {reason}.", uri.path());
            ApiError::http(StatusCode::NOT_IMPLEMENTED, message)
        }
        None => not_found_error(),
    })
}

fn without_slash(uri: &Uri) -> Option<String> {
    let path = uri.path().strip_suffix('/').filter(|path| is_served(path))?;
    Some(match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    })
}

pub(crate) fn not_found_error() -> ApiError {
    ApiError::http(StatusCode::NOT_FOUND, "Not Found")
}

pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::http(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}
