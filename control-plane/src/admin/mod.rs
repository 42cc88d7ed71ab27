//! The admin listener: health and metrics for everybody, debug pages and root rotation for callers on this machine.
//!
//! Reads handles of the other parts; nothing depends on it. No page shows a key or a token.

/// Who may see which page.
mod guard;

/// `/healthz/live` and `/healthz/ready`.
mod health;

/// `/metrics`.
mod export;

/// `/debug/mesh` and `/debug/proxies`.
mod debug;

/// `/rotate-root/...`.
mod rotate;

/// Accepting and serving HTTP/1 connections.
mod listen;

pub(crate) use listen::serve;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use tokio_util::sync::CancellationToken;

use crate::identity::Authority;
use crate::metrics::Metrics;
use crate::registry::Registry;

use crate::xds::Proxies;

/// What the pages read.
pub(crate) struct State {
    pub(crate) registry: Arc<Registry>,
    pub(crate) proxies: Proxies,
    pub(crate) authority: Arc<Authority>,
    pub(crate) metrics: Metrics,
    pub(crate) exported: prometheus_client::registry::Registry,
    pub(crate) shutdown: CancellationToken,
}

fn router(state: Arc<State>) -> Router {
    let local = Router::new()
        .route("/debug/mesh", get(debug::mesh))
        .route("/debug/proxies", get(debug::proxies))
        .route("/rotate-root/{step}", post(rotate::step))
        .layer(axum::middleware::from_fn(guard::only_from_this_machine));
    Router::new()
        .route("/healthz/live", get(health::live))
        .route("/healthz/ready", get(health::ready))
        .route("/metrics", get(export::metrics))
        .merge(local)
        .with_state(state)
}
