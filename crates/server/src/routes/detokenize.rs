//! `/detokenize`.

use axum::{
    Json,
    extract::{Request, State},
};
use protocol::{
    OneOrMany, Table,
    native::{DetokenizeRequest, DetokenizeResponse},
};

use tokenizer::TokenizerError;

use super::generate::check_ids;
use crate::{AppState, body::read_json, error::ApiError};

pub(crate) async fn detokenize(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    let request: DetokenizeRequest = read_json(&state, request, &Table::EMPTY).await?;
    let tokens = check_ids(&state, request.tokens)?;
    if !state.tokenizer.is_there() {
        return Err(ApiError::value(TokenizerError::Skipped.to_string()));
    }
    let skip_special_tokens = request.skip_special_tokens.unwrap_or(true);
    let job_state = state.clone();
    let text = state
        .run_text_job(move || {
            let decode = |ids: &Vec<_>| job_state.tokenizer.decode(ids, skip_special_tokens);
            Ok(match &tokens {
                OneOrMany::One(ids) => OneOrMany::One(decode(ids)),
                OneOrMany::Many(lists) => OneOrMany::Many(lists.iter().map(decode).collect()),
            })
        })
        .await?;
    Ok(Json(DetokenizeResponse { text }))
}
