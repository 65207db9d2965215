//! `/generate`: SGLang's own way to ask.
//!
//! Upstream: `sglang/srt/managers/tokenizer_manager.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use protocol::{
    OneOrMany, PromptIds,
    native::{GENERATE_TABLE, GenerateRequest, GenerateResponse, MetaInfo, SamplingJson},
};
use serde_json::json;
use types::TokenId;

use crate::{
    AppState,
    body::read_json,
    error::ApiError,
    generation::{GenerationPlan, Prompts, SamplingSpec, Sequence, SequenceFlags, Update},
    sse::{self, Frames, StreamFormat},
    state::unix_seconds,
};

pub(crate) async fn generate(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    respond(&state, request).await.map_err(ApiError::nested)
}

async fn respond(state: &AppState, request: Request) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    let request: GenerateRequest = read_json(state, request, &GENERATE_TABLE).await?;
    let is_streaming = request.stream.unwrap_or(false);
    let with_prompt_ids = request.return_prompt_token_ids.unwrap_or(false);
    let flags =
        SequenceFlags { arrived, is_streaming, log_metrics: request.log_metrics.unwrap_or(true) };
    let (plan, is_list) = plan(state, request, flags)?;
    let set = plan.start(state).await?;
    let words = Words {
        weight_version: state.config.weight_version.clone(),
        with_prompt_ids,
        is_incremental: is_streaming && state.config.incremental_streaming_output,
        with_index: is_streaming && is_list,
    };
    if is_streaming {
        return Ok(sse::respond(set, words));
    }
    let sequences = set.collect().await?;
    let whole = |sequence| words.response(sequence, 0, 0);
    let answers: Vec<_> = sequences.iter().map(whole).collect();
    Ok(match answers.as_slice() {
        [answer] if !is_list => Json(answer).into_response(),
        answers => Json(answers).into_response(),
    })
}

/// The plan, and whether the answer is a list.
fn plan(
    state: &AppState,
    request: GenerateRequest,
    flags: SequenceFlags,
) -> Result<(GenerationPlan, bool), ApiError> {
    let (prompts, is_batch) = prompts(state, request.text, request.input_ids)?;
    let specs = specs(state, request.sampling_params, prompts.len())?;
    let n = specs.first().map_or(1, |spec| spec.n);
    if specs.iter().any(|spec| spec.n != n) {
        return Err(ApiError::value("n must be the same for all prompts of a batch."));
    }
    let plan = GenerationPlan { prompts, specs, rid: request.rid, flags };
    Ok((plan, is_batch || n > 1))
}

fn prompts(
    state: &AppState,
    text: Option<OneOrMany<String>>,
    input_ids: Option<PromptIds>,
) -> Result<(Prompts, bool), ApiError> {
    let (prompts, is_batch) = match (text, input_ids) {
        (Some(texts), None) => {
            let is_batch = texts.is_many();
            (Prompts::Texts(texts.into_vec()), is_batch)
        }
        (None, Some(ids)) => {
            let ids = check_ids(state, ids)?;
            let is_batch = ids.is_many();
            (Prompts::Ids(ids.into_vec()), is_batch)
        }
        _ => return Err(ApiError::value("Give either text or input_ids, and only one of them.")),
    };
    match prompts.len() {
        0 => Err(ApiError::value("The batch is empty.")),
        _ => Ok((prompts, is_batch)),
    }
}

/// # Errors
/// The first id that the vocabulary does not have.
pub(crate) fn check_ids(
    state: &AppState,
    ids: PromptIds,
) -> Result<OneOrMany<Vec<TokenId>>, ApiError> {
    let vocab_size = state.engine.model().vocab_size;
    ids.checked(vocab_size).map_err(|id| {
        ApiError::value(format!("Token id {id} is outside the vocabulary [0, {vocab_size})."))
    })
}

fn specs(
    state: &AppState,
    params: Option<OneOrMany<SamplingJson>>,
    num_prompts: usize,
) -> Result<Vec<SamplingSpec>, ApiError> {
    let (vocab_size, interval) = (state.engine.model().vocab_size, state.config.stream_interval);
    let spec = |json| SamplingSpec::new(json, vocab_size, interval);
    match params.unwrap_or(OneOrMany::One(SamplingJson::default())) {
        OneOrMany::One(json) => Ok(vec![spec(json)?; num_prompts]),
        OneOrMany::Many(list) if list.len() == num_prompts => list.into_iter().map(spec).collect(),
        OneOrMany::Many(list) => {
            let got = list.len();
            Err(ApiError::value(format!("{got} sampling_params for {num_prompts} prompts")))
        }
    }
}

/// How answers and chunks are worded.
struct Words {
    weight_version: String,
    with_prompt_ids: bool,
    is_incremental: bool,
    with_index: bool,
}

impl Words {
    fn response<'a>(
        &'a self,
        sequence: &'a Sequence,
        text_from: usize,
        ids_from: usize,
    ) -> GenerateResponse<'a> {
        let counts = sequence.counts();
        let finished = sequence.finish_reason();
        GenerateResponse {
            text: &sequence.text()[text_from..],
            output_ids: &sequence.output_ids()[ids_from..],
            meta_info: MetaInfo {
                id: sequence.rid(),
                finish_reason: finished,
                prompt_tokens: counts.prompt_tokens,
                weight_version: &self.weight_version,
                num_retractions: counts.num_retractions,
                reasoning_tokens: 0,
                completion_tokens: counts.completion_tokens,
                cached_tokens: counts.cached_tokens,
                e2e_latency: sequence.e2e_latency(),
                response_sent_to_client_ts: finished.map(|_| unix_seconds()),
            },
            prompt_token_ids: self.with_prompt_ids.then(|| sequence.prompt_ids()),
            index: self.with_index.then(|| sequence.index()),
        }
    }
}

impl StreamFormat for Words {
    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames) {
        let (text_from, ids_from) = match self.is_incremental {
            true => (update.text_from, update.ids_from),
            false => (0, 0),
        };
        frames.push(&self.response(sequence, text_from, ids_from));
    }

    fn end(&mut self, _: &[Sequence], _: &mut Frames) {}

    fn error(&mut self, error: &ApiError, frames: &mut Frames) {
        let err_type = match error.status {
            StatusCode::BAD_REQUEST => "invalid_request_error",
            _ => "internal_server_error",
        };
        frames.push(&json!({"error": {
            "message": error.message,
            "type": err_type,
            "code": error.status.as_u16(),
            "retryable": false,
        }}));
    }
}
