//! Reading request bodies: limits first, then unsupported fields, then types.

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
};
use futures_util::StreamExt;
use protocol::{Table, refuse_unsupported};
use serde::de::DeserializeOwned;

use crate::{AppState, error::ApiError};

/// Larger bodies are parsed off the async threads.
const INLINE_BYTES: usize = 128 << 10;

/// Reads a JSON body of type `T`, refusing what `table` refuses.
pub(crate) async fn read_json<T: DeserializeOwned + Send + 'static>(
    state: &AppState,
    request: Request,
    table: &'static Table,
) -> Result<T, ApiError> {
    refuse_encoded(request.headers())?;
    let body = read_bytes(request.into_body(), state.config.max_body_bytes).await?;
    if body.len() <= INLINE_BYTES {
        return parse(&body, table);
    }
    state.run_text_job(move || parse(&body, table)).await
}

/// [`read_json`] of a body that may be left out.
pub(crate) async fn read_json_or_default<T: DeserializeOwned + Default + Send + 'static>(
    state: &AppState,
    request: Request,
    table: &'static Table,
) -> Result<T, ApiError> {
    refuse_encoded(request.headers())?;
    let body = read_bytes(request.into_body(), state.config.max_body_bytes).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    parse(&body, table)
}

/// OpenAI's routes insist on JSON's media type.
pub(crate) fn require_json_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::schema("Unsupported Media Type: Only 'application/json' is allowed"))
}

/// What is compressed would be told to be no JSON.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if is_compression(encoding.as_bytes()) => {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            Err(ApiError::http(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("Content-Encoding: {encoding} is not supported: send the body as it is."),
            ))
        }
        _ => Ok(()),
    }
}

fn is_compression(encoding: &[u8]) -> bool {
    const NAMES: [&str; 6] = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress"];
    let encoding = String::from_utf8_lossy(encoding).to_ascii_lowercase();
    encoding.split(',').any(|name| NAMES.contains(&name.trim()))
}

fn parse<T: DeserializeOwned>(body: &[u8], table: &'static Table) -> Result<T, ApiError> {
    // Also refuses what is no object: serde would take a list for a struct.
    refuse_unsupported(body, table)?;
    serde_json::from_slice(body)
        .map_err(|error| ApiError::schema(format!("The body does not fit: {error}")))
}

async fn read_bytes(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("The body is larger than {limit} bytes.");
        ApiError::http(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let announced = http_body_hint(&body);
    if announced > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(announced as usize);
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| ApiError::schema(error.to_string()))?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What `Content-Length` says, 0 if it says nothing.
fn http_body_hint(body: &Body) -> u64 {
    use axum::body::HttpBody;
    body.size_hint().lower()
}
