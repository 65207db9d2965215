//! `/tokenize`.

use axum::{
    Json,
    extract::{Request, State},
};
use protocol::{
    OneOrMany,
    native::{TOKENIZE_TABLE, TokenizeRequest, TokenizeResponse},
    openai::ChatRequest,
};

use crate::{
    AppState,
    body::read_json,
    error::ApiError,
    generation::tokenize_texts,
    routes::chat_completions::{prompt_ids, settle_reasoning},
};

pub(crate) async fn tokenize(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<TokenizeResponse>, ApiError> {
    let request: TokenizeRequest = read_json(&state, request, &TOKENIZE_TABLE).await?;
    let tokens = match (request.prompt, request.messages) {
        (Some(prompt), None) => {
            let (is_many, texts) = (prompt.is_many(), prompt.into_vec());
            let add_special_tokens = request.add_special_tokens.unwrap_or(true);
            let mut ids = tokenize_texts(&state, texts, add_special_tokens).await?;
            match is_many {
                true => OneOrMany::Many(ids),
                false => OneOrMany::One(ids.swap_remove(0)),
            }
        }
        (None, Some(messages)) => {
            let mut chat = ChatRequest {
                messages,
                tools: request.tools,
                tool_choice: request.tool_choice,
                reasoning_effort: request.reasoning_effort,
                continue_final_message: Some(request.continue_final_message),
                chat_template_kwargs: request.chat_template_kwargs,
                ..ChatRequest::default()
            };
            settle_reasoning(&mut chat, state.reasoning_marks.is_some());
            let begins_answer = request.add_generation_prompt.unwrap_or(true);
            OneOrMany::One(prompt_ids(&state, chat, begins_answer).await?)
        }
        _ => return Err(ApiError::value("Give either prompt or messages, and only one of them.")),
    };
    let count = match &tokens {
        OneOrMany::One(ids) => OneOrMany::One(ids.len()),
        OneOrMany::Many(lists) => OneOrMany::Many(lists.iter().map(Vec::len).collect()),
    };
    let max_model_len = state.engine.model().context_length;
    Ok(Json(TokenizeResponse { tokens, count, max_model_len }))
}
