//! `/healthz/live`: the process answers. `/healthz/ready`: every source delivered its first set and nothing shuts down.

use std::sync::Arc;

use axum::extract;
use axum::http::StatusCode;

use super::State;

pub(super) async fn live() -> &'static str {
    "live\n"
}

pub(super) async fn ready(extract::State(state): extract::State<Arc<State>>) -> (StatusCode, &'static str) {
    if state.shutdown.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else if state.registry.synced() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the sources\n")
    }
}
