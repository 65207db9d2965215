//! The table of routes.

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tower_http::cors::CorsLayer;

use crate::{AppState, auth, http_metrics, routes::*};

/// Every route, with authentication, CORS and request counting around them.
pub fn router(state: AppState) -> Router {
    Router::new()
        .merge(generation_routes())
        .merge(vector_routes())
        .merge(info_routes())
        .fallback(root::not_found)
        .method_not_allowed_fallback(root::method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), http_metrics::count_requests))
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_api_key))
        .layer(CorsLayer::permissive())
        .with_state(state)
}

fn generation_routes() -> Router<AppState> {
    Router::new()
        .route("/generate", post(generate::generate).put(generate::generate))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat_completions::chat_completions))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/v1/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(detokenize::detokenize))
        .route("/v1/detokenize", post(detokenize::detokenize))
        .route("/parse_function_call", post(parse_function_call::parse_function_call))
        .route("/separate_reasoning", post(separate_reasoning::separate_reasoning))
        .route("/abort_request", post(abort_request::abort_request))
        .route("/flush_cache", get(flush_cache::flush_cache).post(flush_cache::flush_cache))
}

fn vector_routes() -> Router<AppState> {
    Router::new()
        .route("/encode", post(encode::encode).put(encode::encode))
        .route("/classify", post(encode::encode).put(encode::encode))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/score", post(score::score))
        .route("/v1/rerank", post(rerank::rerank).put(rerank::rerank))
        .route("/v1/classify", post(classify::classify))
}

fn info_routes() -> Router<AppState> {
    Router::new()
        .route("/", get(root::root))
        .route("/ping", get(health::health))
        .route("/ready", get(health::ready))
        .route("/health", get(health::health))
        .route("/health_generate", get(health::health_generate))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/model_info", get(model_info::model_info))
        .route("/get_model_info", get(model_info::model_info))
        .route("/server_info", get(server_info::server_info))
        .route("/get_server_info", get(server_info::server_info))
        .route("/v1/loads", get(loads::loads))
        .route("/metrics", get(metrics::metrics))
}
