//! `/separate_reasoning`.

use axum::{
    Json,
    extract::{Request, State},
};
use parsers::reasoning::{self, Begins, Separated};
use protocol::{
    Table,
    native::{
        ReasoningBlock, ReasoningBlocks, SeparateReasoningRequest, SeparateReasoningResponse,
    },
};

use crate::{AppState, body::read_json, error::ApiError};

pub(crate) async fn separate_reasoning(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<SeparateReasoningResponse>, ApiError> {
    let request: SeparateReasoningRequest = read_json(&state, request, &Table::EMPTY).await?;
    let entry = reasoning::find(&request.reasoning_parser)
        .map_err(|error| ApiError::value(error.to_string()))?;
    let separate = move || Ok(Separated::of_text(entry, Begins::ByHabit, &request.text));
    let separated = state.run_text_job(separate).await?;
    let blocks = request.return_blocks.then(|| blocks(&separated));
    let Separated { reasoning: reasoning_text, content: text } = separated;
    Ok(Json(SeparateReasoningResponse { reasoning_text, text, blocks }))
}

/// Reasoning, if there is any, and then the text.
fn blocks(separated: &Separated) -> ReasoningBlocks {
    let Separated { reasoning, content } = separated;
    let block = |kind, text: &String| ReasoningBlock { kind, text: text.clone() };
    let thought = Some(reasoning).filter(|text| !text.is_empty());
    let mut blocks: Vec<_> = thought.map(|text| block("reasoning", text)).into_iter().collect();
    blocks.push(block("text", content));
    ReasoningBlocks {
        reasoning_blocks: thought.cloned().into_iter().collect(),
        text_blocks: vec![content.clone()],
        blocks,
    }
}
