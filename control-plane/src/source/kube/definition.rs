//! Word of the definition of a kind that the API does not have, so that the kind is seen as soon as it is there. A convenience:
//! without the right to watch definitions there is no word, and the kind is found when it is tried again.

use std::pin::Pin;

use futures_core::Stream;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio_stream::StreamExt as _;

use super::follow::WATCH_SECONDS;
use super::watched::Manifest;

/// The definition of one kind, watched. Dropping it ends the watch.
pub(super) struct Definition {
    events: Pin<Box<dyn Stream<Item = watcher::Result<Event<Metadata>>> + Send>>,
}

/// All that is asked for of a definition.
type Metadata = PartialObjectMeta<CustomResourceDefinition>;

impl Definition {
    /// The definition of `T`. It is asked for by its name, which is all that the right to watch it covers.
    pub(super) fn of<T: Manifest>(client: &Client) -> Self {
        let api: Api<Metadata> = Api::all(client.clone());
        let name = format!("metadata.name={}.{}", T::PLURAL, T::GROUP);
        let config = watcher::Config::default().fields(&name).timeout(WATCH_SECONDS);
        Self { events: Box::pin(watcher(api, config).default_backoff()) }
    }

    /// Waits until it is made or changed, as it is when the API begins to serve the kind. Dropping the future loses no word.
    pub(super) async fn changed(&mut self) {
        while let Some(event) = self.events.next().await {
            if matches!(event, Ok(Event::Apply(_))) {
                return;
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::time::{Instant, sleep};

    use super::super::follow::{Follow, News};
    use super::*;
    use crate::source::object::HttpRouteManifest;

    /// When pauses have been longest for a while.
    const LATE: Duration = Duration::from_secs(200);

    /// An API that gets the kind at `LATE`, and says so in its watch of definitions.
    async fn answer(uri: String, defined: Arc<AtomicBool>) -> (u16, Value) {
        let list = json!({"metadata": {"resourceVersion": "1"}, "items": []});
        if !uri.contains("customresourcedefinitions") {
            let absent = json!({"status": "Failure", "reason": "NotFound", "message": "not found", "code": 404});
            return if defined.load(Ordering::Relaxed) { (200, list) } else { (404, absent) };
        }
        assert!(uri.contains("fieldSelector=metadata.name%3Dhttproutes.gateway.networking.k8s.io"), "{uri}");
        if !uri.contains("watch=") {
            return (200, list);
        }
        if defined.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        sleep(LATE).await;
        defined.store(true, Ordering::Relaxed);
        let metadata = json!({"name": "httproutes.gateway.networking.k8s.io", "resourceVersion": "2"});
        let kind = ("meta.k8s.io/v1", "PartialObjectMetadata");
        (200, json!({"type": "ADDED", "object": {"apiVersion": kind.0, "kind": kind.1, "metadata": metadata}}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_listed_as_soon_as_it_is_defined() {
        let defined = Arc::new(AtomicBool::new(false));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let answer = answer(request.uri().to_string(), Arc::clone(&defined));
            async move {
                let (code, body) = answer.await;
                let body = Body::from(format!("{body}\n").into_bytes());
                Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap())
            }
        });
        let start = Instant::now();
        let mut follow = Follow::<HttpRouteManifest>::new(Client::new(service, "default"));
        let listed = async {
            loop {
                match follow.next().await {
                    News::Trouble(trouble) => assert!(trouble.absent, "{trouble:?}"),
                    News::Event(event) if matches!(*event, Event::InitDone) => break,
                    News::Event(_) => {}
                }
            }
        };
        tokio::time::timeout(2 * LATE, listed).await.expect("the kind is seen");
        let late = start.elapsed() - LATE;
        assert!(late < Duration::from_millis(100), "{late:?}");
    }
}
