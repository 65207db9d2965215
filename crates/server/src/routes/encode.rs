//! `/encode` and `/classify`: SGLang's own ways to ask for vectors.
//!
//! Upstream: `encode_request`, `classify_request` in `sglang/srt/entrypoints/http_server.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::native::{ENCODE_TABLE, EncodeMeta, EncodeRequest, EncodeResponse};

use super::generate;
use crate::{
    AppState,
    body::read_json,
    error::ApiError,
    generation::{Sequence, SequenceFlags, VectorForm, pooled_plan},
    state::unix_seconds,
};

pub(crate) async fn encode(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    respond(&state, request).await.map_err(ApiError::nested)
}

async fn respond(state: &AppState, request: Request) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    let request: EncodeRequest = read_json(state, request, &ENCODE_TABLE).await?;
    let log_metrics = request.log_metrics.unwrap_or(true);
    let flags = SequenceFlags { arrived, is_streaming: false, log_metrics };
    let (prompts, is_list) = generate::prompts(state, request.text, request.input_ids)?;
    let form = VectorForm::new(state, request.dimensions)?;
    let plan = pooled_plan(state, prompts, request.rid, flags)?.with_priority(request.priority);
    let sequences = plan.start(state).await?.collect().await?;
    let with_prompt_ids = request.return_prompt_token_ids.unwrap_or(false);
    let weight_version = state.weight_version();
    let answer = |sequence| answer(&weight_version, sequence, form, with_prompt_ids);
    let answers: Vec<_> = sequences.iter().map(answer).collect();
    Ok(match answers.as_slice() {
        [answer] if !is_list => Json(answer).into_response(),
        answers => Json(answers).into_response(),
    })
}

fn answer<'a>(
    weight_version: &'a str,
    sequence: &'a Sequence,
    form: VectorForm,
    with_prompt_ids: bool,
) -> EncodeResponse<'a> {
    EncodeResponse {
        embedding: form.vector(sequence),
        meta_info: EncodeMeta {
            id: sequence.rid(),
            finish_reason: sequence.finish_reason(),
            prompt_tokens: sequence.counts().prompt_tokens,
            weight_version,
            num_retractions: sequence.counts().num_retractions,
            e2e_latency: sequence.e2e_latency(),
            response_sent_to_client_ts: Some(unix_seconds()),
        },
        prompt_token_ids: with_prompt_ids.then(|| sequence.prompt_ids()),
    }
}
