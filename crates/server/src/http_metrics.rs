//! Counts requests and responses by route.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};

use crate::AppState;

pub(crate) async fn count_requests(
    State(state): State<AppState>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let endpoint = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let active = state.metrics.http.begin(endpoint, request.method().as_str());
    let response = next.run(request).await;
    active.answered(response.status().as_u16());
    response
}
