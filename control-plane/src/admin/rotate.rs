//! `POST /rotate-root/{begin,activate,finish}`: the three steps of a root rotation, for an operator.
//!
//! Between two steps the operator waits until every proxy has the new roots and, before `finish`, a new certificate:
//! `/debug/proxies` shows the first, the lifetime of certificates bounds the second.

use std::sync::Arc;

use axum::extract::{self, Path};
use axum::http::StatusCode;

use super::State;
use crate::identity::Step;

pub(super) async fn step(
    extract::State(state): extract::State<Arc<State>>,
    Path(step): Path<String>,
) -> (StatusCode, String) {
    let step = match step.as_str() {
        "begin" => Step::Begin,
        "activate" => Step::Activate,
        "finish" => Step::Finish,
        other => return (StatusCode::NOT_FOUND, format!("no step {other:?}: begin, activate or finish\n")),
    };
    match state.authority.rotate(step).await {
        Ok(()) => {
            let roots = state.authority.bundle().borrow().roots().len();
            tracing::info!(?step, roots, "root rotation");
            (StatusCode::OK, format!("{step:?} done; {roots} roots are published\n"))
        }
        Err(error) => (StatusCode::CONFLICT, format!("{error}\n")),
    }
}
