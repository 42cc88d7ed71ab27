//! The web shop: asks the catalog, through its sidecar, for each request it gets.

use std::net::SocketAddr;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{Answer, caller};
use crate::demo::client::{Client, Refused};

/// What its handlers share.
#[derive(Clone)]
struct Web {
    replica: String,
    catalog: SocketAddr,
    client: Client,
}

/// Its routes.
pub(super) fn routes(replica: String, catalog: SocketAddr) -> Router {
    let web = Web { replica, catalog, client: Client::http1() };
    Router::new().route("/", get(front)).route("/orders", post(order)).with_state(web)
}

async fn front(State(web): State<Web>, headers: HeaderMap) -> Response {
    web.answer(&headers, "welcome".to_owned()).await
}

async fn order(State(web): State<Web>, headers: HeaderMap, body: Bytes) -> Response {
    web.answer(&headers, format!("ordered, in {} bytes", body.len())).await
}

impl Web {
    async fn answer(self, headers: &HeaderMap, text: String) -> Response {
        match self.client.get_json(self.catalog, "catalog", "/items/teapot").await {
            Ok(behind) => {
                let answer = Answer { replica: self.replica, caller: caller(headers), text, behind: Some(behind) };
                Json(answer).into_response()
            }
            // The reason a proxy gave goes on to whoever asked, so that the demo can show it.
            Err(Refused(why)) => (StatusCode::BAD_GATEWAY, format!("the catalog failed: {why}")).into_response(),
        }
    }
}
