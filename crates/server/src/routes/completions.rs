//! `/v1/completions`.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_completions.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    native::{MaxNewTokens, SamplingJson},
    openai::{
        COMPLETION_TABLE, CachedTokensDetails, CompletionChoice, CompletionChunk,
        CompletionRequest, CompletionResponse, Metadata, Prompt, SglExt,
    },
};
use serde_json::json;
use types::FinishReason;

use super::{generate::check_ids, usage::UsagePolicy};
use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{
        GenerationPlan, LogprobSpec, Prompts, SamplingSpec, Sequence, SequenceFlags, Update,
        response_grammar,
    },
    sse::{self, Frames, StreamFormat},
    state::unix_seconds,
};

const OBJECT: &str = "text_completion";
const DEFAULT_MAX_TOKENS: i64 = 16;

pub(crate) async fn completions(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let request: CompletionRequest = read_json(&state, request, &COMPLETION_TABLE).await?;
    let is_streaming = request.stream.unwrap_or(false);
    if request.best_of.is_some_and(|best_of| best_of != request.n.unwrap_or(1)) {
        return Err(ApiError::value("`best_of` other than n is not supported by this server"));
    }
    let flags = SequenceFlags { arrived, is_streaming, log_metrics: true };
    let prompts = prompts(&state, request.prompt.clone())?;
    let echo = echo_texts(&state, &request, &prompts);
    let prompts = with_suffix(&state, prompts, request.suffix.as_deref().unwrap_or_default())?;
    let vocab_size = state.engine.model().vocab_size;
    let is_in_session = request.session_params.as_ref().is_some_and(|it| it.id.is_some());
    let mut spec =
        SamplingSpec::new(sampling(&request)?, vocab_size, state.config.stream_interval)?;
    if let Some(num_top) = request.logprobs {
        if request.echo.unwrap_or(false) && is_in_session {
            let message = "`echo` with `logprobs` is not supported in a session";
            return Err(ApiError::value(message));
        }
        let start_len = if request.echo.unwrap_or(false) { 0 } else { -1 };
        spec.logprobs = Some(LogprobSpec::of_output(num_top, "logprobs")?.with_input(start_len)?);
    }
    spec.priority = request.priority;
    let n = spec.n;
    let specs = vec![spec; prompts.len()];
    let (rid, session) = (request.rid, request.session_params);
    let plan = GenerationPlan { prompts, specs, rid, flags, session };
    let set = plan.start(&state).await?;
    let words = Words {
        usage: UsagePolicy::new(&state, request.stream_options.as_ref(), n),
        model: request.model.unwrap_or_else(|| "default".to_owned()),
        created: unix_seconds() as u64,
        echo,
        with_token_ids: request.return_token_ids.unwrap_or(false),
        with_cache_details: request.return_cached_tokens_details.unwrap_or(false),
    };
    if is_streaming {
        return Ok(sse::respond(set, words));
    }
    let sequences = set.collect().await?;
    Ok(words.response(&state, &sequences))
}

fn prompts(state: &AppState, prompt: Prompt) -> Result<Prompts, ApiError> {
    let prompts = match prompt {
        Prompt::Text(texts) => Prompts::Texts(texts.into_vec()),
        Prompt::Ids(ids) => Prompts::Ids(check_ids(state, ids)?.into_vec()),
    };
    let is_empty = match &prompts {
        Prompts::Texts(texts) => texts.iter().any(String::is_empty),
        Prompts::Ids(ids) => ids.iter().any(Vec::is_empty),
    };
    match is_empty || prompts.len() == 0 {
        true => Err(ApiError::value("Prompt cannot be empty")),
        false => Ok(prompts),
    }
}

/// Prompts whose completions stand before `suffix`, if there is one.
///
/// # Errors
/// There is no template for such prompts, they are no text, or all of it would be too long.
fn with_suffix(state: &AppState, prompts: Prompts, suffix: &str) -> Result<Prompts, ApiError> {
    if suffix.is_empty() {
        return Ok(prompts);
    }
    let Some(template) = &state.config.completion_template else {
        let message = "`suffix` is not supported by this server without --completion-template";
        return Err(ApiError::value(message));
    };
    match prompts {
        // Each prompt gets a copy of it.
        Prompts::Texts(texts)
            if texts.len().saturating_mul(suffix.len()) > state.config.max_body_bytes =>
        {
            Err(ApiError::value("The suffix is too long for so many prompts."))
        }
        Prompts::Texts(texts) => {
            let prompt = |text: &String| template.prompt(text, suffix);
            Ok(Prompts::Texts(texts.iter().map(prompt).collect()))
        }
        Prompts::Ids(_) => Err(ApiError::value("A prompt with a suffix must be text.")),
    }
}

/// The prompts as text, if they are to be repeated.
fn echo_texts(
    state: &AppState,
    request: &CompletionRequest,
    prompts: &Prompts,
) -> Option<Vec<String>> {
    let decode = |ids: &Vec<_>| state.tokenizer.decode(ids, true);
    request.echo.unwrap_or(false).then(|| match prompts {
        Prompts::Texts(texts) => texts.clone(),
        Prompts::Ids(prompts) => prompts.iter().map(decode).collect(),
    })
}

fn sampling(request: &CompletionRequest) -> Result<SamplingJson, ApiError> {
    let grammar = response_grammar(request.response_format.as_ref())?;
    Ok(SamplingJson {
        max_new_tokens: MaxNewTokens::Exactly(request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
        min_new_tokens: request.min_tokens,
        stop: request.stop.clone(),
        stop_regex: request.stop_regex.clone(),
        stop_token_ids: request.stop_token_ids.clone(),
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        n: request.n,
        ignore_eos: request.ignore_eos,
        skip_special_tokens: request.skip_special_tokens,
        no_stop_trim: request.no_stop_trim,
        stream_interval: None,
        sampling_seed: request.seed,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        repetition_penalty: request.repetition_penalty,
        logit_bias: request.logit_bias.clone(),
        json_schema: grammar.json_schema.or_else(|| request.json_schema.clone()),
        regex: request.regex.clone(),
        ebnf: request.ebnf.clone(),
        structural_tag: grammar.structural_tag,
        custom_params: request.custom_params,
    })
}

/// How answers and chunks are worded.
struct Words {
    usage: UsagePolicy,
    model: String,
    created: u64,
    echo: Option<Vec<String>>,
    with_token_ids: bool,
    with_cache_details: bool,
}

impl Words {
    fn echo_of(&self, sequence: &Sequence) -> &str {
        let prompt = sequence.index() / self.usage.n;
        self.echo.as_ref().map_or("", |texts| &texts[prompt])
    }

    /// `text` are the tokens from `ids_from` on; with the prompt's, if it is the first piece.
    fn choice<'a>(
        &self,
        sequence: &'a Sequence,
        text: &'a str,
        (ids_from, is_first): (usize, bool),
    ) -> CompletionChoice<'a> {
        let with_prompt_ids = self.with_token_ids && is_first;
        CompletionChoice {
            index: sequence.index(),
            text,
            logprobs: sequence.logprobs().map(|(said, tokens)| said.completion(&tokens, ids_from)),
            finish_reason: sequence.finish_reason().map(FinishReason::openai_name),
            matched_stop: sequence.matched_stop(),
            token_ids: self.with_token_ids.then(|| &sequence.output_ids()[ids_from..]),
            prompt_token_ids: with_prompt_ids.then(|| sequence.prompt_ids()),
        }
    }

    /// Of the first sequence of a request.
    fn sglext(&self, first: Option<&Sequence>) -> Option<SglExt<'static>> {
        let cached = first.filter(|_| self.with_cache_details)?.counts().cached_tokens;
        let cached_tokens_details = CachedTokensDetails::new(cached);
        SglExt { cached_tokens_details, ..SglExt::default() }.if_any()
    }

    fn response(&self, state: &AppState, sequences: &[Sequence]) -> Response {
        let texts: Vec<String> =
            sequences.iter().map(|s| format!("{}{}", self.echo_of(s), s.text())).collect();
        let response = CompletionResponse {
            id: sequences.first().map_or("", Sequence::rid),
            object: OBJECT,
            created: self.created,
            model: &self.model,
            choices: sequences
                .iter()
                .zip(&texts)
                .map(|(s, text)| self.choice(s, text, (0, true)))
                .collect(),
            usage: self.usage.total(sequences),
            metadata: Metadata { weight_version: state.weight_version() },
            sglext: self.sglext(sequences.first()),
        };
        Json(response).into_response()
    }

    fn chunk<'a>(
        &'a self,
        sequence: &'a Sequence,
        choices: Vec<CompletionChoice<'a>>,
    ) -> CompletionChunk<'a> {
        CompletionChunk {
            id: sequence.rid(),
            object: OBJECT,
            created: self.created,
            model: &self.model,
            choices,
            usage: self.usage.chunk(sequence),
            sglext: None,
        }
    }
}

impl StreamFormat for Words {
    fn update(&mut self, sequence: &Sequence, update: &Update, frames: &mut Frames) {
        if let Some(error) = sequence.finish_reason().and_then(ApiError::from_abort) {
            return self.error(&error, frames);
        }
        let echo = if update.is_first { self.echo_of(sequence) } else { "" };
        let text = format!("{echo}{}", &sequence.text()[update.text_from..]);
        let speaks_of_tokens = self.with_token_ids || sequence.logprobs().is_some();
        if !text.is_empty() || speaks_of_tokens || sequence.finish_reason().is_some() {
            let choice = self.choice(sequence, &text, (update.ids_from, update.is_first));
            frames.push(&self.chunk(sequence, vec![choice]));
        }
    }

    fn end(&mut self, sequences: &[Sequence], frames: &mut Frames) {
        let Some(last) = sequences.last() else { return };
        let first = sequences.iter().min_by_key(|sequence| sequence.index());
        if let Some(sglext) = self.sglext(first) {
            let chunk = self.chunk(last, Vec::new());
            frames.push(&CompletionChunk { sglext: Some(sglext), usage: None, ..chunk });
        }
        if self.usage.at_end {
            let usage = self.usage.total(sequences);
            frames.push(&CompletionChunk { usage: Some(usage), ..self.chunk(last, Vec::new()) });
        }
    }

    fn error(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.push(&json!({"error": error.body()}));
    }
}

#[cfg(test)]
mod tests {
    use protocol::OneOrMany;

    use super::*;

    #[test]
    fn sampling_uses_openai_names() {
        let json = r#"{"prompt":"a","max_tokens":null,"min_tokens":2,"seed":-5,"stop":"x"}"#;
        let request: CompletionRequest = serde_json::from_str(json).unwrap();
        let params = sampling(&request).unwrap();
        assert_eq!(params.max_new_tokens, MaxNewTokens::Exactly(16));
        assert_eq!((params.min_new_tokens, params.sampling_seed), (Some(2), Some(-5)));
        assert_eq!(request.prompt, Prompt::Text(OneOrMany::One("a".into())));
    }
}
