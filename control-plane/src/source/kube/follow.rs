//! One kind, watched for good: list, watch, and again from the list when the API has forgotten where we were. Errors are
//! told and tried again: those of the API ever more slowly, up to a minute, or at once, when a kind that it did not have is
//! defined; silence every two seconds.

use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::definition::Definition;
use super::watched::{Manifest, Watched, resource};

/// A watch is begun anew after this long, so that one whose connection has died without a word is noticed.
pub(super) const WATCH_SECONDS: u32 = 60;

/// Longest wait for an API that cannot be reached. Nobody is spared by a longer one, and when it is back we must follow
/// before what it had to put off is done: pods of a rolling restart go within seconds.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// Objects in one answer of a list.
const PAGE: u32 = 500;

/// Whether the mesh can do without a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It cannot.
    Always,
    /// It can, when the API does not have it or does not show it.
    WhenThere,
}

/// What happened to the objects of a kind.
pub(super) enum News<T> {
    Event(Box<Event<Watched<T>>>),
    /// They cannot be seen now, and why.
    Trouble(Trouble),
}

/// Why a kind cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The API does not have the kind.
    pub(super) absent: bool,
    /// What to tell the user; none for what passes by itself.
    pub(super) reason: Option<String>,
}

/// The news of a kind, without end. Dropping it ends the watch.
pub(super) struct Follow<T> {
    client: Client,
    events: Events<T>,
    backoff: DefaultBackoff,
    /// The API was silent the last time, and that was told.
    silent: bool,
    /// Not before this.
    again: Option<Instant>,
    /// Where word of the kind's definition comes from, while the API does not have the kind.
    definition: Option<Definition>,
}

type Events<T> = Pin<Box<dyn Stream<Item = watcher::Result<Event<Watched<T>>>> + Send>>;

impl<T: Manifest> Follow<T> {
    pub(super) fn new(client: Client) -> Self {
        let events = Self::events(&client);
        Self { client, events, backoff: DefaultBackoff::default(), silent: false, again: None, definition: None }
    }

    fn events(client: &Client) -> Events<T> {
        let api: Api<Watched<T>> = Api::all_with(client.clone(), &resource::<T>());
        let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        Box::pin(watcher(api, config))
    }

    /// Waits for the next news. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> News<T> {
        if let Some(again) = self.again {
            self.wait(again).await;
            self.again = None;
        }
        match self.events.next().await {
            Some(Ok(event)) => {
                // A list that begins may fail yet.
                if !matches!(event, Event::Init) {
                    self.backoff = DefaultBackoff::default();
                    self.silent = false;
                    self.definition = None;
                }
                News::Event(Box::new(event))
            }
            Some(Err(error)) => {
                let silent = std::mem::replace(&mut self.silent, is_unreachable(&error)) && self.silent;
                let pause = self.pause();
                self.again = Some(Instant::now() + pause);
                let trouble = trouble::<T>(&error);
                if trouble.absent {
                    self.definition.get_or_insert_with(|| Definition::of::<T>(&self.client));
                    tracing::debug!(kind = T::KIND, again_in = ?pause, "the API does not have the kind");
                } else if silent {
                    // Once is enough of what is tried again every two seconds.
                    tracing::debug!(kind = T::KIND, %error, again_in = ?pause, "watching failed again");
                } else {
                    tracing::warn!(kind = T::KIND, %error, again_in = ?pause, "watching failed");
                }
                if trouble.reason.is_some() || trouble.absent {
                    // From the list again, so that it is seen when all is well.
                    self.events = Self::events(&self.client);
                }
                News::Trouble(trouble)
            }
            None => {
                self.events = Self::events(&self.client);
                News::Trouble(Trouble { absent: false, reason: None })
            }
        }
    }
}

impl<T> Follow<T> {
    /// How long to wait after an error.
    fn pause(&mut self) -> Duration {
        if self.silent {
            self.backoff = DefaultBackoff::default();
            return UNREACHABLE.mul_f64(rand::random_range(0.5..1.0));
        }
        self.backoff.next().unwrap_or_default()
    }

    /// Waits until `again`, or until there is word of the kind's definition.
    async fn wait(&mut self, again: Instant) {
        let Some(definition) = &mut self.definition else { return tokio::time::sleep_until(again).await };
        // Biased: with word the pauses are short again, for the API may need a moment yet.
        tokio::select! {
            biased;
            () = definition.changed() => self.backoff = DefaultBackoff::default(),
            () = tokio::time::sleep_until(again) => {}
        }
    }
}

/// Whether the API said nothing at all.
const fn is_unreachable(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    matches!(error, InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) if !matches!(error, kube::Error::Api(_)))
}

/// What an error means to the user.
fn trouble<T: Manifest>(error: &watcher::Error) -> Trouble {
    let passing = Trouble { absent: false, reason: None };
    let (status, listing) = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => (status.as_ref(), true),
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) | watcher::Error::WatchError(status) => {
            (status.as_ref(), false)
        }
        watcher::Error::InitialListFailed(error) => {
            let reason = format!("the API does not answer: {} are not seen: {error}", T::PLURAL);
            return Trouble { absent: false, reason: Some(reason) };
        }
        watcher::Error::WatchStartFailed(_) | watcher::Error::WatchFailed(_) | watcher::Error::NoResourceVersion => {
            return passing;
        }
    };
    let group = if T::GROUP.is_empty() { "\"\"" } else { T::GROUP };
    match status.code {
        404 if listing => {
            let reason = format!("the API has no {}.{group}: its definition is not installed", T::PLURAL);
            Trouble { absent: true, reason: Some(reason) }
        }
        401 | 403 => {
            let reason = format!(
                "the control plane may not list and watch {} (apiGroup {group}) in all namespaces, which a ClusterRole \
                 must allow: {}",
                T::PLURAL,
                status.message
            );
            Trouble { absent: false, reason: Some(reason) }
        }
        // Gone: our place in the history is forgotten, and the whole is listed next.
        code if listing && code != 410 => {
            let reason = format!("{} cannot be listed: {}", T::PLURAL, status.message);
            Trouble { absent: false, reason: Some(reason) }
        }
        _ => passing,
    }
}

#[cfg(test)]
mod tests {
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::source::object::ServiceManifest;

    /// An API that cannot be reached for a minute, then has no objects.
    #[tokio::test(start_paused = true)]
    async fn an_api_that_is_back_is_followed_at_once() {
        let back = Instant::now() + Duration::from_secs(60);
        let service = tower::service_fn(move |request: http::Request<Body>| async move {
            if Instant::now() < back {
                return Err("connection refused");
            }
            if request.uri().query().is_some_and(|query| query.contains("watch=")) {
                std::future::pending::<()>().await;
            }
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": []});
            Ok(http::Response::new(Body::from(list.to_string().into_bytes())))
        });
        let mut follow = Follow::<ServiceManifest>::new(Client::new(service, "default"));
        let listed =
            async { while !matches!(follow.next().await, News::Event(event) if matches!(*event, Event::InitDone)) {} };
        tokio::time::timeout(Duration::from_secs(600), listed).await.expect("what there is");
        assert!(back.elapsed() <= UNREACHABLE, "{:?}", back.elapsed());
    }
}
