//! Errors as clients of SGLang know them.
//!
//! There are two shapes: a flat `{"object":"error",...}`, and for values that
//! `/generate` refuses, `{"error":{"message":...}}`. A handler of a native
//! route turns the first into the second with [`ApiError::nested`].

use axum::{
    Json,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use protocol::{FieldError, openai::ErrorResponse};
use serde::Serialize;
use serde_json::json;
use types::{FinishReason, SubmitError};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) err_type: String,
    /// A value was refused, as opposed to the request as such.
    is_value_error: bool,
    is_nested: bool,
}

impl ApiError {
    /// 400: a value that cannot be used.
    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            err_type: "BadRequestError".to_owned(),
            is_value_error: true,
            is_nested: false,
        }
    }

    /// 400: a body that does not fit the schema.
    pub(crate) fn schema(message: impl Into<String>) -> Self {
        let err_type = "Bad Request".to_owned();
        Self { err_type, is_value_error: false, ..Self::value(message) }
    }

    /// Any other status.
    pub(crate) fn http(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            err_type: status.as_u16().to_string(),
            is_value_error: false,
            is_nested: false,
        }
    }

    pub(crate) fn shutting_down() -> Self {
        Self::http(StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down.")
    }

    pub(crate) fn engine_gone() -> Self {
        Self::http(StatusCode::INTERNAL_SERVER_ERROR, "The engine stopped.")
    }

    /// The native form of value errors.
    pub(crate) fn nested(self) -> Self {
        Self { is_nested: self.is_value_error, ..self }
    }

    /// The error of an aborted request; `None` if a client or an operator
    /// asked for the abort, which is an answer like any other.
    pub(crate) fn from_abort(reason: &FinishReason) -> Option<Self> {
        let FinishReason::Abort { message, status_code, err_type } = reason else { return None };
        let status = StatusCode::from_u16(*status_code).ok()?;
        if *reason == FinishReason::aborted() || status.as_u16() == 499 {
            return None;
        }
        Some(match status {
            StatusCode::BAD_REQUEST => Self::value(message.clone()),
            _ => Self { err_type: err_type.clone(), ..Self::http(status, message.clone()) },
        })
    }

    /// The response with a body of another dialect.
    pub(crate) fn response_with(&self, body: &impl Serialize) -> Response {
        self.with_status(Json(body).into_response())
    }

    fn with_status(&self, body: Response) -> Response {
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
        }
        response
    }

    pub(crate) fn body(&self) -> ErrorResponse {
        ErrorResponse {
            object: "error",
            message: self.message.clone(),
            err_type: self.err_type.clone(),
            param: None,
            code: self.status.as_u16(),
        }
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::Malformed { message } => {
                Self::schema(format!("The body is not a valid JSON object: {message}"))
            }
            refused => Self::value(refused.to_string()),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = match error {
            SubmitError::Full => "The request queue is full.",
            SubmitError::Closed => "The engine is not running.",
        };
        Self::http(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = match self.is_nested {
            true => Json(json!({"error": {"message": self.message}})).into_response(),
            false => Json(self.body()).into_response(),
        };
        self.with_status(body)
    }
}
