//! `/v1/classify`: the most likely label.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_classify.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    Table,
    openai::{ClassifyData, ClassifyRequest, ClassifyResponse},
};
use types::PooledOutput;
use uuid::Uuid;

use super::embeddings::{prompt_usage, prompts};
use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{SequenceFlags, VectorForm, pooled_plan, softmax},
    state::unix_seconds,
};

pub(crate) async fn classify(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let request: ClassifyRequest = read_json(&state, request, &Table::EMPTY).await?;
    let prompts = prompts(&state, request.input)?;
    let flags = SequenceFlags { arrived, is_streaming: false, log_metrics: true };
    let plan = pooled_plan(&state, prompts, request.rid, flags)?.with_priority(request.priority);
    let output = state.engine.model().pooled.as_ref().map(|pooled| &pooled.output);
    let Some(PooledOutput::Scores { labels }) = output else {
        return Err(ApiError::value("This model gives embeddings and no labels."));
    };
    let sequences = plan.start(&state).await?.collect().await?;
    let data = sequences.iter().map(|sequence| {
        let probs = softmax(&VectorForm::Scores.vector(sequence));
        let likeliest = (0..probs.len()).rev().max_by(|&a, &b| probs[a].total_cmp(&probs[b]));
        ClassifyData {
            index: sequence.index(),
            label: likeliest.map_or("", |label| labels[label].as_str()),
            num_classes: probs.len(),
            probs,
        }
    });
    let response = ClassifyResponse {
        id: format!("classify-{}", Uuid::new_v4().simple()),
        object: "list",
        created: unix_seconds() as u64,
        model: request.model.as_deref().unwrap_or("default"),
        data: data.collect(),
        usage: prompt_usage(&sequences),
    };
    Ok(Json(response).into_response())
}
