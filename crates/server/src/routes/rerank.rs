//! `/v1/rerank`: how well documents fit a query, by a decoder that answers "yes" or "no", or by an
//! encoder that reads both and gives a score.
//!
//! Upstream: `sglang/srt/entrypoints/openai/serving_rerank.py`.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    Table,
    openai::{Content, RerankRequest, RerankResult},
};
use serde_json::{Map, Value, json};
use tokenizer::{ChatTemplate, RenderOptions};
use types::{PooledOutput, TokenId};

use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{Prompts, Sequence, SequenceFlags, check_text, label_plan, pair_plan},
};

pub(crate) async fn rerank(
    State(state): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    state.accept_requests()?;
    require_json_content_type(request.headers())?;
    let request: RerankRequest = read_json(&state, request, &Table::EMPTY).await?;
    let query = text(request.query)?;
    let documents: Vec<String> =
        request.documents.into_iter().map(text).collect::<Result<_, _>>()?;
    check(&query, &documents)?;
    let repeated = query.len() + request.instruct.as_ref().map_or(0, String::len);
    super::score::check_repeated(repeated, documents.iter().map(String::len))?;
    let flags = SequenceFlags { arrived, is_streaming: false, log_metrics: true };
    let template = state.chat_template.as_ref().filter(|template| is_reranker(template));
    let scores = match template {
        Some(template) => {
            let prompts = prompts(&state, template, (&query, &documents), request.instruct).await?;
            decoder_scores(&state, prompts, flags).await?
        }
        None => encoder_scores(&state, (query, documents.clone()), flags).await?,
    };
    let with_documents = request.return_documents.unwrap_or(true);
    let mut results: Vec<RerankResult> = scores
        .into_iter()
        .zip(documents)
        .enumerate()
        .map(|(index, (score, document))| RerankResult {
            score,
            document: with_documents.then_some(document),
            index,
            meta_info: None,
        })
        .collect();
    // Stable: the request decides between equals.
    results.sort_by(|a, b| b.score.total_cmp(&a.score));
    if let Some(top_n) = request.top_n.and_then(|top_n| usize::try_from(top_n).ok()) {
        results.truncate(if top_n > 0 { top_n } else { usize::MAX });
    }
    Ok(Json(results).into_response())
}

/// By a decoder, the share of "yes".
async fn decoder_scores(
    state: &AppState,
    prompts: Prompts,
    flags: SequenceFlags,
) -> Result<Vec<f32>, ApiError> {
    if state.engine.model().pooled.is_some() {
        return Err(ApiError::value(
            "Detected Qwen3 reranker chat template, but the server is not in generation mode. \
             Please relaunch without --is-embedding for Qwen3-Reranker models.",
        ));
    }
    let labels = vec![answers(state)?.to_vec(); prompts.len()];
    let plan = label_plan(state, prompts, labels, 1.0, flags)?;
    let sequences = plan.start(state).await?.collect().await?;
    Ok(sequences.iter().map(yes_share).collect())
}

/// By an encoder that reads query and document as a pair, its only label.
async fn encoder_scores(
    state: &AppState,
    (query, documents): (String, Vec<String>),
    flags: SequenceFlags,
) -> Result<Vec<f32>, ApiError> {
    let pooled = state.engine.model().pooled.as_ref().filter(|pooled| pooled.is_encoder);
    let Some(PooledOutput::Scores { labels }) = pooled.map(|pooled| &pooled.output) else {
        return Err(ApiError::value(
            "This model is no reranker: it is no encoder with a head of one label, and there is \
             no --chat-template of a decoder that answers \"yes\" or \"no\" (Qwen3-Reranker's).",
        ));
    };
    if labels.len() != 1 {
        let message = format!("A reranker has one label, this model has {}.", labels.len());
        return Err(ApiError::value(message));
    }
    let longest = documents.iter().max_by_key(|document| document.len());
    let texts = [Some(&query), longest];
    texts.into_iter().flatten().try_for_each(|text| check_text(state, text))?;
    let tokenizer = state.tokenizer.clone();
    let encode = move || {
        let pair = |document: &String| tokenizer.encode_pair(&query, document);
        let pairs: Result<Vec<_>, _> = documents.iter().map(pair).collect();
        pairs.map_err(|error| ApiError::value(error.to_string()))
    };
    let plan = pair_plan(state, state.run_text_job(encode).await?, flags)?;
    let sequences = plan.start(state).await?.collect().await?;
    Ok(sequences.iter().map(|pair| pair.pooled().first().copied().unwrap_or_default()).collect())
}

/// # Errors
/// Something else than text.
fn text(content: Content) -> Result<String, ApiError> {
    match content {
        Content::Text(text) => Ok(text),
        Content::Parts(parts) => {
            if let Some(part) = parts.iter().find(|part| part.kind != "text") {
                let message = format!("content of type `{}` is not supported", part.kind);
                return Err(ApiError::value(message));
            }
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.text.as_deref()).collect();
            Ok(texts.join(" "))
        }
    }
}

fn check(query: &str, documents: &[String]) -> Result<(), ApiError> {
    let wrong = |message: &str| Err(ApiError::value(message));
    if query.is_empty() {
        return wrong("Query cannot be empty");
    }
    if query.trim().is_empty() {
        return wrong("Query cannot be empty or whitespace only");
    }
    if documents.is_empty() {
        return wrong("Documents cannot be empty");
    }
    if documents.iter().any(String::is_empty) {
        return wrong("Each document must be a non-empty string");
    }
    if documents.iter().any(|document| document.trim().is_empty()) {
        return wrong("Each document cannot be empty or whitespace only");
    }
    Ok(())
}

/// Whether a template asks for "yes" or "no", by upstream's rule.
fn is_reranker(template: &ChatTemplate) -> bool {
    let source = template.source().to_lowercase();
    ["answer can only be", "\"yes\"", "\"no\""].iter().all(|phrase| source.contains(phrase))
}

/// Query and document are two messages of the user.
async fn prompts(
    state: &AppState,
    template: &ChatTemplate,
    (query, documents): (&str, &[String]),
    instruct: Option<String>,
) -> Result<Prompts, ApiError> {
    let instruct = instruct.filter(|instruct| !instruct.is_empty());
    let kwargs: Map<String, Value> = instruct
        .map(|instruct| ("instruct".to_owned(), Value::from(instruct)))
        .into_iter()
        .collect();
    let (template, query, documents) = (template.clone(), query.to_owned(), documents.to_vec());
    let render = move |document: &String| {
        let message = |content: &str| json!({"role": "user", "content": content});
        let options = RenderOptions {
            add_generation_prompt: false,
            kwargs: kwargs.clone(),
            ..RenderOptions::default()
        };
        let rendered = template.render(&[message(&query), message(document)], &options);
        rendered.map_err(|error| ApiError::value(error.to_string()))
    };
    let texts = state.run_text_job(move || documents.iter().map(render).collect()).await?;
    Ok(Prompts::Texts(texts))
}

/// The tokens of "yes" and "no".
fn answers(state: &AppState) -> Result<[TokenId; 2], ApiError> {
    let token = |text: &str| {
        let ids = state.tokenizer.encode(text, false);
        let ids = ids.map_err(|error| ApiError::value(error.to_string()))?;
        match ids.as_slice() {
            [id] => Ok(*id),
            _ => Err(ApiError::value(format!("the tokenizer has no single token for \"{text}\""))),
        }
    };
    Ok([token("yes")?, token("no")?])
}

/// The share of "yes" in both.
fn yes_share(sequence: &Sequence) -> f32 {
    let [yes, no] = sequence.label_logprobs() else { return 0.0 };
    let (yes, no) = (yes.exp(), no.exp());
    if yes + no > 0.0 { yes / (yes + no) } else { 0.0 }
}
