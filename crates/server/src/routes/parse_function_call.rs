//! `/parse_function_call`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use parsers::tool_call::{self, ParsedCalls, Tools};
use protocol::{
    Table,
    native::{ParseFunctionCallRequest, ParseFunctionCallResponse, ParsedCall},
};

use crate::{AppState, body::read_json, error::ApiError};

/// As upstream's, a text without tools has no calls.
pub(crate) async fn parse_function_call(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<ParseFunctionCallResponse>, ApiError> {
    let request: ParseFunctionCallRequest = read_json(&state, request, &Table::EMPTY).await?;
    let entry = match (&request.tool_call_parser, state.config.parsers.tool_call) {
        (Some(name), _) => tool_call::find(name).map_err(|e| ApiError::value(e.to_string()))?,
        (None, Some(own)) => own,
        (None, None) => {
            return Err(ApiError::value("Name a tool_call_parser: the server runs without one."));
        }
    };
    let tools = Tools::new(&request.tools).map_err(|error| ApiError::value(error.to_string()))?;
    if request.tools.is_empty() {
        let (normal_text, calls) = (request.text, Vec::new());
        return Ok(Json(ParseFunctionCallResponse { normal_text, calls }));
    }
    let parse = move || Ok(ParsedCalls::of_text(entry, Arc::new(tools), &request.text));
    let parsed = state.run_text_job(parse).await?;
    let calls = parsed.calls.into_iter().enumerate().map(|(tool_index, call)| ParsedCall {
        tool_index,
        name: call.name,
        parameters: call.arguments,
    });
    let (normal_text, calls) = (parsed.text, calls.collect());
    Ok(Json(ParseFunctionCallResponse { normal_text, calls }))
}
