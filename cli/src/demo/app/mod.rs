//! The applications of the shop. They know nothing of the mesh: they listen on a port, call an address, and read one
//! header, in which their sidecar says who called.

/// HTTP; asks the catalog for each request.
mod web;

/// HTTP.
mod catalog;

/// gRPC.
pub(super) mod reviews;

use anyhow::Context as _;
use axum::Router;
use axum::serve::ListenerExt as _;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{AppArgs, Service};

/// Header in which a sidecar names the peer it has verified, as Envoy does: `By=...;Hash=...;URI=spiffe://...`.
const CLIENT_CERTIFICATE: &str = "x-forwarded-client-cert";

/// What web and catalog answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Which replica answers.
    pub(super) replica: String,
    /// Who called it, as its sidecar has verified; empty when it did not.
    pub(super) caller: String,
    /// What it says.
    pub(super) text: String,
    /// The answer it got from the service behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) behind: Option<Box<Self>>,
}

/// Serves until SIGTERM, then finishes what is under way.
///
/// # Errors
/// When it cannot listen.
pub(super) async fn run(args: AppArgs) -> anyhow::Result<()> {
    let routes = match args.service {
        Service::Web => web::routes(args.replica, args.catalog.context("the web needs --catalog")?),
        Service::Catalog => catalog::routes(args.replica),
        Service::Reviews => reviews::routes(args.replica),
    };
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listening on {}", args.listen))?;
    let stop = async move {
        terminate.recv().await;
    };
    serve(listener, routes, stop).await
}

async fn serve(
    listener: TcpListener,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    // Small answers must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, routes).with_graceful_shutdown(stop).await.context("serving")
}

/// The verified identity of the caller; empty when there is none.
fn caller(headers: &HeaderMap) -> String {
    let certificate = headers.get(CLIENT_CERTIFICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // The last element is the nearest peer's; quotes are for values with separators, which an identity has not.
    let nearest = certificate.rsplit(',').next().unwrap_or_default();
    let uri = nearest.split(';').find_map(|pair| pair.trim().strip_prefix("URI="));
    uri.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::demo::client::{Client, Refused};

    /// Web, catalog and reviews without sidecars: nobody verifies callers, everything else is as in the mesh.
    #[tokio::test]
    async fn the_shop_answers() {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (web, catalog, reviews) = (bind().await, bind().await, bind().await);
        let [to_web, to_catalog, to_reviews] = [&web, &catalog, &reviews].map(|l| l.local_addr().unwrap());
        let shopping = async {
            let client = Client::http1();
            let answer: Answer = client.get_json(to_web, "web", "/").await.unwrap();
            let behind = answer.behind.unwrap();
            assert_eq!((&*answer.replica, &*behind.replica, &*behind.caller), ("web-1", "catalog-1", ""));
            let answer: Answer = client.post_json(to_web, "web", "/orders", "{}").await.unwrap();
            assert_eq!(answer.text, "ordered, in 2 bytes");
            let missing: Result<Answer, _> = client.get_json(to_web, "web", "/nothing").await;
            assert_eq!(missing.unwrap_err(), Refused("404: ".to_owned()));
            let reply = Client::http2().list_reviews(to_reviews, "cup").await.unwrap();
            assert_eq!((&*reply.replica, &*reply.reviews[0]), ("reviews-1", "cup: pours well"));
        };
        tokio::select! {
            biased; // the servers first, so that they answer
            ended = serve(web, web::routes("web-1".to_owned(), to_catalog), pending()) => panic!("{ended:?}"),
            ended = serve(catalog, catalog::routes("catalog-1".to_owned()), pending()) => panic!("{ended:?}"),
            ended = serve(reviews, reviews::routes("reviews-1".to_owned()), pending()) => panic!("{ended:?}"),
            () = shopping => {}
        }
    }

    #[test]
    fn the_caller_is_the_nearest_peer() {
        let called = |value: &str| {
            caller(&HeaderMap::from_iter([(CLIENT_CERTIFICATE.parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(called("By=spiffe://a/b;Hash=12;URI=spiffe://a/c"), "spiffe://a/c");
        assert_eq!(called("URI=spiffe://a/x,By=spiffe://a/b;URI=\"spiffe://a/c\""), "spiffe://a/c");
        assert_eq!(called("Hash=12"), "");
        assert_eq!(caller(&HeaderMap::new()), "");
    }
}
