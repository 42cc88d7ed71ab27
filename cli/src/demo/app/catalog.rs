//! The catalog: an answer per request.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use http::HeaderMap;

use super::{Answer, caller};

/// Its routes.
pub(super) fn routes(replica: String) -> Router {
    Router::new().route("/items/{item}", get(item)).with_state(replica)
}

async fn item(State(replica): State<String>, Path(item): Path<String>, headers: HeaderMap) -> Json<Answer> {
    Json(Answer { replica, caller: caller(&headers), text: format!("{item}: 3 in stock"), behind: None })
}
