//! `/v1/rerank`: how well documents fit a query, by a decoder that answers "yes" or "no".
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
use types::TokenId;

use crate::{
    AppState,
    body::{read_json, require_json_content_type},
    error::ApiError,
    generation::{Prompts, Sequence, SequenceFlags, label_plan},
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
    let template = state.chat_template.as_ref().filter(|template| is_reranker(template));
    let Some(template) = template else {
        return Err(ApiError::value(
            "This model is no reranker: start the server with --chat-template and the template \
             of a decoder that answers \"yes\" or \"no\" (Qwen3-Reranker's).",
        ));
    };
    if state.engine.model().pooled.is_some() {
        return Err(ApiError::value(
            "Detected Qwen3 reranker chat template, but the server is not in generation mode. \
             Please relaunch without --is-embedding for Qwen3-Reranker models.",
        ));
    }
    let prompts = prompts(&state, template, (&query, &documents), request.instruct).await?;
    let labels = vec![answers(&state)?.to_vec(); documents.len()];
    let flags = SequenceFlags { arrived, is_streaming: false, log_metrics: true };
    let plan = label_plan(&state, prompts, labels, 1.0, flags)?;
    let sequences = plan.start(&state).await?.collect().await?;
    let scores = sequences.iter().map(score);
    let with_documents = request.return_documents.unwrap_or(true);
    let mut results: Vec<RerankResult> = scores
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
fn score(sequence: &Sequence) -> f32 {
    let [yes, no] = sequence.label_logprobs() else { return 0.0 };
    let (yes, no) = (yes.exp(), no.exp());
    if yes + no > 0.0 { yes / (yes + no) } else { 0.0 }
}
