//! Wiring: settings to listeners, from start to a graceful end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::{self, Keeper};
use crate::events;
use crate::metrics::Metrics;
use crate::serve::{self, Tls};
use crate::settings::Settings;
use crate::webhook::{self, Webhook};

/// Connections are still taken for so long after the end was announced: callers learn of it by the Service.
const LINGER: Duration = Duration::from_secs(5);

/// Pause between two attempts to reach the API server.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until `shutdown` resolves, then fails readiness, serves for 5 s more, and finishes what is under way.
///
/// # Errors
/// When a port cannot be bound or no way to the API server is configured.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let client = kube::Client::try_default().await.context("finding the API server")?;
    let admin = bind(settings.admin_address).await?;
    let webhook_listener = bind(settings.webhook_address).await?;
    let metrics = Metrics::default();
    let keeper = Keeper::new(client.clone(), &settings, metrics.clone());
    let (serving, problem) = (keeper.serving(), keeper.problem());
    let native = watch::Sender::new(None);
    let (ending, end) = (CancellationToken::new(), CancellationToken::new());
    let pages = Arc::new(Pages {
        exported: metrics.registry(),
        serving: serving.clone(),
        problem,
        native: native.subscribe(),
        ending: ending.clone(),
    });
    let _admin = spawn(serve::serve(admin, router(pages), None, end.clone()));
    let _keeper = spawn(keeper.run());
    let (notes, queue) = events::queue();
    let _events = spawn(events::write(queue, client.clone()));
    tracing::info!(webhook = %settings.webhook_address, admin = %settings.admin_address, "the injector starts");

    let mut shutdown = std::pin::pin!(shutdown);
    let has_native = tokio::select! {
        biased; // asked to end before it began
        () = &mut shutdown => return Ok(()),
        has_native = ask(&client) => has_native,
    };
    native.send_replace(Some(has_native));
    for limit in &settings.injection.raised {
        tracing::warn!(limit, "a limit of the proxies was raised");
    }
    let webhook = Webhook { injection: settings.injection, native: has_native, metrics: metrics.clone(), notes };
    let tls = Tls { configs: serving, metrics };
    let served = spawn(serve::serve(webhook_listener, webhook::router(Arc::new(webhook)), Some(tls), end.clone()));
    shutdown.await;
    ending.cancel();
    tracing::info!("ending");
    tokio::time::sleep(LINGER).await;
    end.cancel();
    served.await.context("serving the webhook")
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "ended by its handle")]
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// Asks what the API server can do, until it answers.
async fn ask(client: &kube::Client) -> bool {
    loop {
        match cluster::has_native_sidecars(client).await {
            Ok(native) => return native,
            Err(error) => tracing::warn!(%error, "the API server does not answer"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What the pages of the admin port read.
struct Pages {
    exported: prometheus_client::registry::Registry,
    serving: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
    problem: watch::Receiver<Option<String>>,
    native: watch::Receiver<Option<bool>>,
    ending: CancellationToken,
}

fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/healthz/live", get(async || "live\n"))
        .route("/healthz/ready", get(ready))
        .route("/metrics", get(export))
        .with_state(pages)
}

/// Ready once there is a certificate and the API server has answered; what went wrong later does not make it unready,
/// because the webhook serves all the same.
async fn ready(State(pages): State<Arc<Pages>>) -> (StatusCode, String) {
    let problem = pages.problem.borrow().as_ref().map(|problem| format!("{problem}\n")).unwrap_or_default();
    let waits = if pages.ending.is_cancelled() {
        "ending\n"
    } else if pages.native.borrow().is_none() {
        "waiting for the API server\n"
    } else if pages.serving.borrow().is_none() {
        "waiting for a certificate\n"
    } else {
        return (StatusCode::OK, format!("ready\n{problem}"));
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{waits}{problem}"))
}

async fn export(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &pages.exported) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}
