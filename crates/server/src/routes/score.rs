//! `/v1/score`: how likely some tokens are after a text, or what a head of labels says.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_score.py`,
//! `sglang/srt/managers/tokenizer_manager_score_mixin.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    MAX_BATCH_SIZE, OneOrMany, PromptIds,
    openai::{Prompt, SCORE_TABLE, ScoreRequest, ScoreResponse},
};
use types::{PooledOutput, TokenId};

use super::embeddings::prompt_usage;
use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{
        GenerationPlan, Prompts, Sequence, SequenceFlags, VectorForm, label_plan, pooled_plan,
        softmax,
    },
};

pub(crate) async fn score(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let request: ScoreRequest = read_json(&state, request, &SCORE_TABLE).await?;
    let flags = SequenceFlags { arrived, is_streaming: false, log_metrics: true };
    let item_first = request.item_first.unwrap_or(false);
    let Some(items) = request.items else {
        return Err(ApiError::value("items must be provided"));
    };
    let prompts = prompts(&state, request.query, items, item_first)?;
    let labels = request.label_token_ids;
    let temperature = request.temperature.unwrap_or(1.0);
    let with_logprobs = request.return_token_logprobs.unwrap_or(false);
    let (plan, kind) = plan(&state, prompts, (labels, temperature), flags)?;
    if with_logprobs && kind == Kind::Scores {
        return Err(ApiError::value("return_token_logprobs needs a model that gives tokens"));
    }
    let sequences = match plan {
        Some(plan) => plan.start(&state).await?.collect().await?,
        None => Vec::new(),
    };
    let values: Vec<Vec<f32>> = sequences.iter().map(|sequence| kind.values(sequence)).collect();
    let apply_softmax = request.apply_softmax.unwrap_or(false);
    let response = ScoreResponse {
        scores: values.iter().map(|values| kind.scores(values, apply_softmax)).collect(),
        token_logprobs: with_logprobs.then_some(values),
        model: request.model.as_deref().unwrap_or("default"),
        usage: prompt_usage(&sequences),
        object: "scoring",
    };
    Ok(Json(response).into_response())
}

/// What a score is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Log-probabilities of the labels' tokens.
    Tokens,
    /// The head's.
    Scores,
}

impl Kind {
    fn values(self, sequence: &Sequence) -> Vec<f32> {
        match self {
            Self::Tokens => sequence.label_logprobs().to_vec(),
            Self::Scores => VectorForm::Scores.vector(sequence),
        }
    }

    fn scores(self, values: &[f32], apply_softmax: bool) -> Vec<f32> {
        match (self, apply_softmax) {
            (_, true) => softmax(values),
            (Self::Tokens, false) => values.iter().map(|logprob| logprob.exp()).collect(),
            (Self::Scores, false) => values.to_vec(),
        }
    }
}

/// `None` for no items.
fn plan(
    state: &AppState,
    prompts: Prompts,
    (labels, temperature): (Option<PromptIds>, f64),
    flags: SequenceFlags,
) -> Result<(Option<GenerationPlan>, Kind), ApiError> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(ApiError::value(format!("temperature must be positive, got {temperature}")));
    }
    if let Some(pooled) = &state.engine.model().pooled {
        if !matches!(pooled.output, PooledOutput::Scores { .. }) {
            return Err(ApiError::value("This model gives embeddings and no scores."));
        }
        if temperature != 1.0 {
            return Err(ApiError::value("temperature needs a model that gives tokens"));
        }
        let plan = (prompts.len() > 0).then(|| pooled_plan(state, prompts, None, flags));
        return Ok((plan.transpose()?, Kind::Scores));
    }
    let Some(labels) = labels else {
        return Err(ApiError::value("label_token_ids must be provided"));
    };
    let labels = check_labels(state, labels, prompts.len())?;
    let plan = (prompts.len() > 0).then(|| label_plan(state, prompts, labels, temperature, flags));
    Ok((plan.transpose()?, Kind::Tokens))
}

/// A list for each of `count` items.
fn check_labels(
    state: &AppState,
    labels: PromptIds,
    count: usize,
) -> Result<Vec<Vec<TokenId>>, ApiError> {
    let vocab_size = state.engine.model().vocab_size;
    let labels = labels.checked(vocab_size).map_err(|id| {
        ApiError::value(format!("Token ID {id} is out of vocabulary (vocab size: {vocab_size})"))
    })?;
    match labels {
        OneOrMany::One(ids) => Ok(vec![ids; count]),
        OneOrMany::Many(lists) if lists.len() == count => Ok(lists),
        OneOrMany::Many(lists) => {
            let got = lists.len();
            Err(ApiError::value(format!("{got} lists of label_token_ids for {count} items")))
        }
    }
}

/// Query and item, or item and query, as one prompt each.
fn prompts(
    state: &AppState,
    query: Option<Prompt>,
    items: Prompt,
    item_first: bool,
) -> Result<Prompts, ApiError> {
    match (query, items) {
        (_, Prompt::Text(items)) if items.is_empty() => Ok(Prompts::Texts(Vec::new())),
        (Some(Prompt::Text(OneOrMany::One(query))), Prompt::Text(items)) => {
            let items = items.into_vec();
            check_repeated(query.len(), items.iter().map(String::len))?;
            let joined = |item: String| match item_first {
                true => format!("{item}{query}"),
                false => format!("{query}{item}"),
            };
            Ok(Prompts::Texts(items.into_iter().map(joined).collect()))
        }
        // An empty list says nothing of its kind.
        (Some(Prompt::Text(none)), Prompt::Ids(items)) if none.is_empty() => {
            joined_ids(state, Vec::new(), items, item_first)
        }
        (Some(Prompt::Ids(PromptIds::One(query))), Prompt::Ids(items)) => {
            joined_ids(state, query, items, item_first)
        }
        _ => Err(ApiError::value("Invalid combination of query/items types for score_request.")),
    }
}

/// A text that is repeated for each of many others grows to what nobody has sent.
const MAX_REPEATED_BYTES: usize = 256 << 20;

/// # Errors
/// More `others` than a request may have prompts, or too much text once each has the `repeated`
/// bytes.
pub(super) fn check_repeated(
    repeated: usize,
    others: impl ExactSizeIterator<Item = usize>,
) -> Result<(), ApiError> {
    let count = others.len();
    if count > MAX_BATCH_SIZE {
        let message = format!("at most {MAX_BATCH_SIZE} texts a request, got {count}");
        return Err(ApiError::value(message));
    }
    let total = repeated * count + others.sum::<usize>();
    if total > MAX_REPEATED_BYTES {
        let message = format!(
            "{count} texts with the query in each take {total} bytes, {MAX_REPEATED_BYTES} at most"
        );
        return Err(ApiError::value(message));
    }
    Ok(())
}

fn joined_ids(
    state: &AppState,
    query: Vec<i64>,
    items: PromptIds,
    item_first: bool,
) -> Result<Prompts, ApiError> {
    let PromptIds::Many(items) = items else {
        return Err(ApiError::value("items must be texts or lists of token ids"));
    };
    let id_bytes = |ids: &Vec<i64>| size_of_val(ids.as_slice());
    check_repeated(id_bytes(&query), items.iter().map(id_bytes))?;
    let joined = |item: Vec<i64>| match item_first {
        true => [item.as_slice(), &query].concat(),
        false => [query.as_slice(), &item].concat(),
    };
    let prompts = PromptIds::Many(items.into_iter().map(joined).collect());
    super::generate::check_ids(state, prompts).map(|prompts| Prompts::Ids(prompts.into_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_text_is_bounded() {
        let refusal = |repeated: usize, others: &[usize]| {
            check_repeated(repeated, others.iter().copied()).err().map(|error| error.message)
        };
        assert_eq!(refusal(1 << 20, &[0; 256]), None);
        let message = "256 texts with the query in each take 268435457 bytes, 268435456 at most";
        let mut others = [0; 256];
        others[7] = 1;
        assert_eq!(refusal(1 << 20, &others), Some(message.to_owned()));
        assert_eq!(refusal(1, &[1; 4096]), None);
        let message = "at most 4096 texts a request, got 4097";
        assert_eq!(refusal(0, &[1; 4097]), Some(message.to_owned()));
    }
}
