//! `/metrics`: the Prometheus text form.

use std::sync::Arc;

use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::State;

/// The OpenMetrics form is what the encoder writes; Prometheus reads it under this type.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(extract::State(state): extract::State<Arc<State>>) -> Response {
    {
        let mesh = state.registry.subscribe().borrow().clone();
        state.metrics.mesh_version.set(i64::try_from(mesh.version).unwrap_or(i64::MAX));
        state.metrics.problems.set(i64::try_from(mesh.problems().len()).unwrap_or(i64::MAX));
    }
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &state.exported) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
