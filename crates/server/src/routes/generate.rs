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
    openai::CachedTokensDetails,
};
use serde_json::json;
use types::TokenId;

use super::usage::UsagePolicy;
use crate::{
    AppState,
    body::read_json,
    error::ApiError,
    generation::{
        GenerationPlan, LogprobSpec, Prompts, SamplingSpec, Sequence, SequenceFlags, Update, budget,
    },
    sse::{self, Frames, StreamFormat},
    state::unix_seconds,
};

/// Patterns in all `sampling_params` of a request.
const MAX_STOP_REGEX: usize = 128;

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
    let has_reasoning = request.require_reasoning.unwrap_or(false);
    let flags =
        SequenceFlags { arrived, is_streaming, log_metrics: request.log_metrics.unwrap_or(true) };
    let (plan, is_list) = plan(state, request, flags)?;
    let set = plan.start(state).await?;
    let words = Words {
        weight_version: state.weight_version(),
        with_prompt_ids,
        usage: UsagePolicy::new(state, None, 1).with_reasoning(state, has_reasoning),
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
    let wanted = LogprobFields {
        return_logprob: request.return_logprob,
        start_len: request.logprob_start_len,
        top_num: request.top_logprobs_num,
        token_ids: request.token_ids_logprob,
        with_text: request.return_text_in_logprobs.unwrap_or(false),
    };
    let (prompts, is_batch) = prompts(state, request.text, request.input_ids)?;
    let mut specs = specs(state, request.sampling_params, prompts.len())?;
    wanted.apply(state, &mut specs)?;
    if request.require_reasoning.unwrap_or(false) {
        begin_with_reasoning(state, &mut specs)?;
    }
    if let Some(max) = request.max_thinking_tokens {
        specs.iter_mut().for_each(|spec| spec.thinking_budget = budget(Some(max)));
    }
    specs.iter_mut().for_each(|spec| spec.priority = request.priority);
    let session = request.session_params;
    let n = specs.first().map_or(1, |spec| spec.n);
    if specs.iter().any(|spec| spec.n != n) {
        return Err(ApiError::value("n must be the same for all prompts of a batch."));
    }
    let plan = GenerationPlan { prompts, specs, rid: request.rid, flags, session };
    Ok((plan, is_batch || n > 1))
}

/// # Errors
/// There is no reasoning parser to tell where reasoning ends.
fn begin_with_reasoning(state: &AppState, specs: &mut [SamplingSpec]) -> Result<(), ApiError> {
    // Reasoning that can reopen is opened by the model.
    let is_opened = state.reasoning_marks.as_ref().is_some_and(|marks| !marks.reopens);
    specs.iter_mut().for_each(|spec| spec.begins_inside = Some(is_opened));
    for grammar in specs.iter_mut().filter_map(|spec| spec.grammar.as_mut()) {
        let Some(begin) = &state.answer_begin else {
            return Err(ApiError::value("require_reasoning needs a --reasoning-parser."));
        };
        grammar.after = Some(begin.clone());
    }
    Ok(())
}

/// The prompts, and whether they are a batch.
///
/// # Errors
/// Neither or both of the two, an empty batch, ids outside the vocabulary.
pub(super) fn prompts(
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
        OneOrMany::Many(list) if list.len() == num_prompts => {
            check_stop_regex(&list)?;
            list.into_iter().map(spec).collect()
        }
        OneOrMany::Many(list) => {
            let got = list.len();
            Err(ApiError::value(format!("{got} sampling_params for {num_prompts} prompts")))
        }
    }
}

/// Each pattern may take a megabyte once it is compiled.
fn check_stop_regex(list: &[SamplingJson]) -> Result<(), ApiError> {
    let counts = list.iter().filter_map(|json| json.stop_regex.as_ref().map(|sent| sent.count));
    match counts.sum() {
        0..=MAX_STOP_REGEX => Ok(()),
        count => {
            let message = format!(
                "at most {MAX_STOP_REGEX} stop_regex are allowed in all sampling_params, got {count}"
            );
            Err(ApiError::value(message))
        }
    }
}

/// The fields that ask for log-probabilities: for all prompts, or one each.
struct LogprobFields {
    return_logprob: Option<OneOrMany<bool>>,
    start_len: Option<OneOrMany<i64>>,
    top_num: Option<OneOrMany<i64>>,
    token_ids: Option<PromptIds>,
    with_text: bool,
}

impl LogprobFields {
    /// # Errors
    /// Lists that are not as long as there are prompts; values outside their ranges.
    fn apply(self, state: &AppState, specs: &mut [SamplingSpec]) -> Result<(), ApiError> {
        let wanted = each("return_logprob", self.return_logprob, false, specs.len())?;
        let starts = each("logprob_start_len", self.start_len, -1, specs.len())?;
        let tops = each("top_logprobs_num", self.top_num, 0, specs.len())?;
        let token_ids = self.token_ids.map(|ids| check_ids(state, ids)).transpose()?;
        let token_ids = match token_ids {
            None => vec![None; specs.len()],
            Some(ids) => each("token_ids_logprob", Some(ids), Vec::new(), specs.len())?
                .into_iter()
                .map(Some)
                .collect(),
        };
        for (index, spec) in specs.iter_mut().enumerate().filter(|(index, _)| wanted[*index]) {
            let logprobs = LogprobSpec::of_output(tops[index], "top_logprobs_num")?
                .with_input(starts[index])?
                .with_text(self.with_text);
            spec.logprobs = Some(match &token_ids[index] {
                Some(ids) => logprobs.with_token_ids(ids),
                None => logprobs,
            });
        }
        Ok(())
    }
}

/// A value for each of `count` prompts.
fn each<T: Clone>(
    name: &str,
    values: Option<OneOrMany<T>>,
    default: T,
    count: usize,
) -> Result<Vec<T>, ApiError> {
    match values.unwrap_or(OneOrMany::One(default)) {
        OneOrMany::One(value) => Ok(vec![value; count]),
        OneOrMany::Many(values) if values.len() == count => Ok(values),
        OneOrMany::Many(values) => {
            Err(ApiError::value(format!("{} {name} for {count} prompts", values.len())))
        }
    }
}

/// `meta_info`; log-probabilities are those of the tokens from `ids_from` on.
pub(super) fn meta_info<'a>(
    sequence: &'a Sequence,
    usage: &UsagePolicy,
    weight_version: &'a str,
    ids_from: usize,
) -> MetaInfo<'a> {
    let counts = sequence.counts();
    let finished = sequence.finish_reason();
    MetaInfo {
        id: sequence.rid(),
        finish_reason: finished,
        prompt_tokens: counts.prompt_tokens,
        weight_version,
        num_retractions: counts.num_retractions,
        reasoning_tokens: usage.reasoning_tokens(sequence),
        completion_tokens: counts.completion_tokens,
        cached_tokens: counts.cached_tokens,
        cached_tokens_details: CachedTokensDetails::new(counts.cached_tokens),
        e2e_latency: sequence.e2e_latency(),
        response_sent_to_client_ts: finished.map(|_| unix_seconds()),
        logprobs: sequence.logprobs().map(|(said, tokens)| said.meta(&tokens, ids_from)),
    }
}

/// How answers and chunks are worded.
struct Words {
    weight_version: String,
    with_prompt_ids: bool,
    usage: UsagePolicy,
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
        GenerateResponse {
            text: &sequence.text()[text_from..],
            output_ids: &sequence.output_ids()[ids_from..],
            meta_info: meta_info(sequence, &self.usage, &self.weight_version, ids_from),
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
