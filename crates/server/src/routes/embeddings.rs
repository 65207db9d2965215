//! `/v1/embeddings`.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_embedding.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::openai::{
    EMBEDDING_TABLE, EmbeddingObject, EmbeddingRequest, EmbeddingResponse, EmbeddingVector, Prompt,
    Usage,
};

use super::generate::check_ids;
use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{Prompts, Sequence, SequenceFlags, VectorForm, pooled_plan},
};

pub(crate) async fn embeddings(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let request: EmbeddingRequest = read_json(&state, request, &EMBEDDING_TABLE).await?;
    let is_base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("encoding_format must be float or base64, got {other}");
            return Err(ApiError::value(message));
        }
    };
    let prompts = prompts(&state, request.input)?;
    let form = VectorForm::new(&state, request.dimensions)?;
    let flags = SequenceFlags { arrived, is_streaming: false, log_metrics: true };
    let plan = pooled_plan(&state, prompts, request.rid, flags)?.with_priority(request.priority);
    let sequences = plan.start(&state).await?.collect().await?;
    let object = |sequence: &Sequence| EmbeddingObject {
        object: "embedding",
        index: sequence.index(),
        embedding: encoded(form.vector(sequence), is_base64),
    };
    let model_path = state.model_path();
    let response = EmbeddingResponse {
        object: "list",
        data: sequences.iter().map(object).collect(),
        model: &model_path,
        usage: prompt_usage(&sequences),
    };
    Ok(Json(response).into_response())
}

/// The usage of sequences without a completion.
pub(super) fn prompt_usage(sequences: &[Sequence]) -> Usage {
    let prompt_tokens = sequences.iter().map(|sequence| sequence.counts().prompt_tokens).sum();
    Usage { prompt_tokens, total_tokens: prompt_tokens, ..Usage::default() }
}

/// # Errors
/// No input, or one of nothing but white space; ids outside the vocabulary.
pub(super) fn prompts(state: &AppState, input: Prompt) -> Result<Prompts, ApiError> {
    let wrong = |message: String| Err(ApiError::value(message));
    let is_list = matches!(&input, Prompt::Text(texts) if texts.is_many());
    let prompts = match input {
        Prompt::Text(texts) => Prompts::Texts(texts.into_vec()),
        Prompt::Ids(ids) => Prompts::Ids(check_ids(state, ids)?.into_vec()),
    };
    let is_blank = |text: &String| text.trim().is_empty();
    let empty = match &prompts {
        Prompts::Texts(texts) => texts.iter().position(is_blank),
        Prompts::Ids(prompts) => prompts.iter().position(Vec::is_empty),
    };
    match (empty, &prompts) {
        _ if prompts.len() == 0 => wrong("Input cannot be empty".to_owned()),
        (None, _) => Ok(prompts),
        (Some(at), Prompts::Texts(_)) if is_list => {
            wrong(format!("Input at index {at} cannot be empty or whitespace only"))
        }
        (Some(_), Prompts::Texts(_)) => {
            wrong("Input cannot be empty or whitespace only".to_owned())
        }
        (Some(_), Prompts::Ids(prompts)) if prompts.len() == 1 => {
            wrong("Input cannot be empty".to_owned())
        }
        (Some(at), Prompts::Ids(_)) => wrong(format!("Input at index {at} cannot be empty")),
    }
}

/// As numbers, or as the bytes of f32 in the order of x86 and ARM.
fn encoded(vector: Vec<f32>, is_base64: bool) -> EmbeddingVector {
    if !is_base64 {
        return EmbeddingVector::Numbers(vector);
    }
    let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
    EmbeddingVector::Base64(BASE64_STANDARD.encode(bytes))
}
