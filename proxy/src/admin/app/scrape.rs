//! The application's metrics behind our own, in one reply.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::probe::driven;
use crate::config::bootstrap::Scrape;
use crate::telemetry::exposition::{Exposition, Kind, Labels};

/// Prometheus waits 10 s for the whole reply, as it comes.
const TIME: Duration = Duration::from_secs(5);

/// Most bytes of the application's metrics.
const SIZE: usize = 8 * 1024 * 1024;

/// The application's metrics, in the text format 0.0.4.
pub(super) async fn fetch(scrape: &Scrape, address: SocketAddr) -> Result<String, String> {
    match tokio::time::timeout(TIME, Box::pin(get(scrape, address))).await {
        Ok(got) => got,
        Err(_) => Err(format!("no answer within {TIME:?}")),
    }
}

async fn get(scrape: &Scrape, address: SocketAddr) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| text(&error))?;
    let request = Request::get(scrape.page.target()?)
        .header(header::HOST, address.to_string())
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    let reply = async {
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        let body = Limited::new(response.into_body(), SIZE).collect().await.map_err(|error| error.to_string())?;
        String::from_utf8(body.to_bytes().into()).map_err(|_| "its metrics are not text".to_owned())
    };
    driven(connection, reply).await
}

/// One text. Where both have `process_*`, the application's count: they are what the pod is about.
pub(super) fn merge(ours: String, theirs: Result<String, String>) -> String {
    let up = |text: String, up: u8| {
        let mut out = Exposition::after(text);
        out.family("tulle_app_scrape_up", Kind::Gauge, "1 while the application's own metrics follow.");
        out.sample(&Labels::default(), up);
        out.finish()
    };
    match theirs {
        Err(reason) => {
            tracing::debug!(reason, "the application's metrics are missing");
            up(ours, 0)
        }
        Ok(theirs) => {
            let mut text = up(without_process(&ours), 1);
            // What OpenMetrics ends with would end ours.
            let theirs = theirs.trim_end().trim_end_matches("# EOF").trim_end();
            text.push_str(theirs);
            text.push('\n');
            text
        }
    }
}

fn without_process(text: &str) -> String {
    let names = |line: &str| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with("process_");
    text.split_inclusive('\n').filter(|line| !names(line)).collect()
}
