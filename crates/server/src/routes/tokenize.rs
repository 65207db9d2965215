//! `/tokenize`.

use axum::{
    Json,
    extract::{Request, State},
};
use protocol::{
    OneOrMany,
    native::{TOKENIZE_TABLE, TokenizeRequest, TokenizeResponse},
};

use crate::{
    AppState,
    body::read_json,
    error::ApiError,
    generation::{ChatPrompt, tokenize_chat, tokenize_texts},
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
            let prompt = ChatPrompt {
                messages,
                tools: Vec::new(),
                add_generation_prompt: request.add_generation_prompt.unwrap_or(true),
                continue_final_message: request.continue_final_message,
                kwargs: request.chat_template_kwargs,
            };
            OneOrMany::One(tokenize_chat(&state, prompt).await?)
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
