//! The table of routes.

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tower_http::cors::CorsLayer;

use crate::{AppState, auth, console, http_metrics, routes::*, trace};

/// Every route, with authentication, CORS and request counting around them.
pub fn router(state: AppState) -> Router {
    let counted = middleware::from_fn_with_state(state.clone(), http_metrics::count_requests);
    let clients = Router::new()
        .merge(generation_routes())
        .merge(vector_routes())
        .merge(dialect_routes())
        .merge(info_routes())
        .fallback(root::not_found)
        .method_not_allowed_fallback(root::method_not_allowed)
        .layer(counted.clone())
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_api_key));
    let administrators = control_routes()
        .method_not_allowed_fallback(root::method_not_allowed)
        .layer(counted)
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_admin_key));
    clients
        .merge(administrators)
        .layer(middleware::from_fn(trace::adopt_parent))
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
        .route("/open_session", get(open_session::open_session).post(open_session::open_session))
        .route(
            "/close_session",
            get(close_session::close_session).post(close_session::close_session),
        )
        .route("/parse_function_call", post(parse_function_call::parse_function_call))
        .route("/separate_reasoning", post(separate_reasoning::separate_reasoning))
}

fn dialect_routes() -> Router<AppState> {
    Router::new()
        .route("/v1/messages", post(messages::messages))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/tags", get(ollama::tags))
        .route("/api/show", post(ollama::show))
        .route("/api/version", get(ollama::version))
        .route("/invocations", post(chat_completions::chat_completions))
        .route("/vertex_generate", post(vertex_generate::vertex_generate))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::retrieve))
        .route("/v1/responses/{id}/cancel", post(responses::cancel))
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
        .route("/console/{file}", get(console::file))
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
        .route("/openapi.json", get(openapi::openapi))
}

/// What changes the server or other clients' requests.
fn control_routes() -> Router<AppState> {
    Router::new()
        .route("/abort_request", post(abort_request::abort_request))
        .route("/flush_cache", get(flush_cache::flush_cache).post(flush_cache::flush_cache))
        .route("/pause_generation", post(pause_generation::pause_generation))
        .route("/continue_generation", post(pause_generation::continue_generation))
        .route("/update_weight_version", post(update_weight_version::update_weight_version))
        .route(
            "/update_weights_from_disk",
            post(update_weights_from_disk::update_weights_from_disk),
        )
        .route("/start_profile", get(profile::start_profile).post(profile::start_profile))
        .route("/stop_profile", get(profile::stop_profile).post(profile::stop_profile))
        .route("/slow_down", get(slow_down::slow_down).post(slow_down::slow_down))
        .route("/freeze_gc", get(freeze_gc::freeze_gc).post(freeze_gc::freeze_gc))
        .route(
            "/set_internal_state",
            post(set_internal_state::set_internal_state)
                .put(set_internal_state::set_internal_state),
        )
        .route(
            "/configure_logging",
            get(configure_logging::configure_logging).post(configure_logging::configure_logging),
        )
}
