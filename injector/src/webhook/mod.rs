//! The pages that the API server asks: `/inject` and `/validate`. A request in, a verdict out; no state but counters.
//!
//! Bodies are bounded in size and time. What is no request is answered 4xx; a pod is never admitted half done.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use crate::decide::{self, Circumstances, Skip, Verdict};
use crate::events::{Note, Notes};
use crate::metrics::Metrics;
use crate::patch;
use crate::review::Review;
use crate::settings::Injection;
use crate::validate;

/// Largest body. An object is 1.5 MiB at most, and a review may hold it twice.
const LARGEST: usize = 4 * 1024 * 1024;

/// A body arrives within this; the API server waits 10 s for the whole answer.
const BODY: Duration = Duration::from_secs(8);

/// What verdicts are made of.
#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) injection: Injection,
    /// Whether the API server has native sidecars.
    pub(crate) native: bool,
    pub(crate) metrics: Metrics,
    pub(crate) notes: Notes,
}

/// The pages.
pub(crate) fn router(webhook: Arc<Webhook>) -> Router {
    Router::new().route("/inject", post(inject)).route("/validate", post(validate)).with_state(webhook)
}

async fn inject(State(webhook): State<Arc<Webhook>>, request: Request) -> Response {
    webhook.answer("inject", request, Webhook::inject).await
}

async fn validate(State(webhook): State<Arc<Webhook>>, request: Request) -> Response {
    webhook.answer("validate", request, Webhook::validate).await
}

/// Reads a request.
async fn review(request: Request) -> Result<Review, (StatusCode, String)> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "send content-type: application/json\n".to_owned()));
    }
    let body = match tokio::time::timeout(BODY, axum::body::to_bytes(Body::new(body), LARGEST)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body was not read: {error}\n"))),
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long\n".to_owned())),
    };
    Review::read(&body).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

impl Webhook {
    async fn answer(&self, page: &'static str, request: Request, verdict: fn(&Self, &Review) -> Value) -> Response {
        match review(request).await {
            Ok(review) => Json(verdict(self, &review)).into_response(),
            Err((status, reason)) => {
                self.metrics.count(page, "refused", "bad_request");
                tracing::warn!(page, %status, reason, "a request that is none");
                (status, reason).into_response()
            }
        }
    }

    /// The verdict of `/validate`.
    pub(crate) fn validate(&self, review: &Review) -> Value {
        let Some(object) = review.object() else {
            self.metrics.count("validate", "allowed", "no_object");
            return review.allow(&[], &[]);
        };
        let found = validate::object(object, review.old_object());
        if found.errors.is_empty() {
            self.metrics.count("validate", "allowed", if found.warnings.is_empty() { "right" } else { "warned" });
            review.allow(&[], &found.warnings)
        } else {
            self.metrics.count("validate", "denied", "wrong_value");
            review.deny(&found.errors.join("; "), &found.warnings)
        }
    }

    /// The verdict of `/inject`.
    pub(crate) fn inject(&self, review: &Review) -> Value {
        let Some(pod) = review.object().filter(|_| review.kind() == "Pod" && review.is_creation()) else {
            self.metrics.count("inject", "skipped", "no_pod");
            return review.allow(&[], &["tulle-injector: only the creation of pods is its business".to_owned()]);
        };
        let namespace = review.namespace();
        // The API server asks about selected pods only: those of labelled namespaces, and those with the label.
        let around = Circumstances { namespace, by_default: true, native: self.native };
        let note = |reason, warning, text: &str| {
            if !review.is_dry_run() {
                self.notes.tell(pod, namespace, Note { reason, warning, text: text.to_owned() });
            }
        };
        match decide::decide(pod, around) {
            Verdict::Inject(inject) => {
                let patched = patch::inject(pod, &inject, &self.injection, None);
                self.metrics.count("inject", "injected", if inject.native { "native" } else { "classic" });
                let warnings: Vec<_> =
                    inject.warnings.iter().cloned().chain(patch::warnings(pod, inject.native)).collect();
                for warning in &warnings {
                    note("TulleInjectionWarning", true, warning);
                }
                let mode = if inject.native { "native sidecar" } else { "container" };
                note(
                    "TulleInjected",
                    false,
                    &format!("patched the pod with the Tulle proxy as a {mode}; not yet accepted by the API server"),
                );
                review.allow(&patch::diff(pod, &patched), &warnings)
            }
            // Asked again, because another webhook has changed the pod since.
            Verdict::Skip(Skip::AlreadyInjected) => {
                let operations = patch::diff(pod, &patch::again(pod));
                let outcome = if operations.is_empty() { "skipped" } else { "injected" };
                self.metrics.count("inject", outcome, Skip::AlreadyInjected.reason());
                let warnings = decide::warnings_again(pod);
                for warning in &warnings {
                    note("TulleInjectionWarning", true, warning);
                }
                review.allow(&operations, &warnings)
            }
            Verdict::Skip(skip) => {
                self.metrics.count("inject", "skipped", skip.reason());
                let text = skip.to_string();
                if skip.is_expected() {
                    return review.allow(&[], &[]);
                }
                note("TulleNotInjected", true, &text);
                review.allow(&[], &[text])
            }
            Verdict::Deny(deny) => {
                self.metrics.count("inject", "denied", deny.reason());
                note("TulleRefused", true, &deny.to_string());
                review.deny(&deny.to_string(), &[])
            }
        }
    }
}

#[cfg(test)]
mod tests;
