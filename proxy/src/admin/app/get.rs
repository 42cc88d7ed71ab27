//! HTTP probes and hooks: a GET with the kubelet's rules for header fields, redirects, TLS and response bodies
//! (`pkg/probe/http` and `pkg/kubelet/lifecycle` of Kubernetes 1.34).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::probe::{Failed, driven};
use super::tls;
use crate::config::bootstrap::Reference;

/// Requests of one probe; a redirect after the last fails it.
const REQUESTS: usize = 10;

/// Most bytes read of a response body.
const BODY: usize = 10 * 1024;

/// A probe knows its result before the body; the body is read for this long, so that no application is cut off while it writes.
const BODY_TIME: Duration = Duration::from_millis(100);

/// Most fields of a response, and most bytes of its head.
const MAX_FIELDS: usize = 1024;

/// What is asked for: an absolute URL, and the `Host` to send when it is not the one of the URL.
#[derive(Clone, Debug)]
pub(super) struct Page {
    url: Reference,
    host: Option<HeaderValue>,
}

impl Page {
    /// The page of a probe; the application is always asked where the proxy reaches it.
    pub(super) fn of_probe(tls: bool, address: SocketAddr, page: &Reference) -> Self {
        let url = Reference {
            scheme: Some(if tls { "https" } else { "http" }.to_owned()),
            authority: Some(address.to_string()),
            ..page.clone()
        };
        Self { url, host: None }
    }

    fn is_tls(&self) -> bool {
        self.url.scheme.as_deref() == Some("https")
    }

    fn port(&self) -> Option<u16> {
        let usual = if self.is_tls() { 443 } else { 80 };
        self.url.host().1.map_or(Some(usual), |port| port.parse().ok())
    }
}

/// Asks the application at `address`, following redirects to it.
pub(super) struct Asker<'a> {
    pub(super) address: IpAddr,
    /// `httpHeaders` of the manifest.
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    /// `User-Agent` of the kubelet that asks.
    pub(super) agent: &'a HeaderValue,
    /// A lifecycle hook.
    pub(super) hook: bool,
}

impl Asker<'_> {
    /// Follows redirects within the host, as `RedirectChecker(false)` does.
    pub(super) async fn run(&self, first: Page) -> Result<StatusCode, Failed> {
        let mut page = Page { host: self.first(&header::HOST).filter(|host| !host.is_empty()).cloned(), ..first };
        let mut referer = None;
        for _ in 0..REQUESTS {
            let (status, headers) = Box::pin(self.ask(&page, referer.as_ref())).await?;
            match next(&page, status, &headers)? {
                Step::Follow(next) => {
                    referer = referer_of(&page, &next);
                    page = next;
                }
                Step::Done => return judge(status),
            }
        }
        Err(Failed::unanswered(format!("it redirects {REQUESTS} times")))
    }

    async fn ask(&self, page: &Page, referer: Option<&HeaderValue>) -> Result<(StatusCode, HeaderMap), Failed> {
        let port = page.port().ok_or_else(|| Failed::unanswered("its redirect has no port"))?;
        let address = SocketAddr::new(self.address, port);
        let connect = async || TcpStream::connect(address).await.map_err(Failed::unanswered);
        if !page.is_tls() {
            return self.http1(page, referer, connect().await?).await;
        }
        match tls::connect(connect().await?, self.address).await {
            Ok((stream, true)) => Box::pin(self.http2(page, referer, stream)).await,
            Ok((stream, false)) => Box::pin(self.http1(page, referer, stream)).await,
            // A hook for a server without TLS goes there in the clear, as it did before the kubelet knew HTTPS hooks.
            Err(error) if self.hook && tls::is_plain(&error) => self.http1(page, referer, connect().await?).await,
            Err(error) => Err(Failed::unanswered(error)),
        }
    }

    async fn http1<S>(
        &self,
        page: &Page,
        referer: Option<&HeaderValue>,
        stream: S,
    ) -> Result<(StatusCode, HeaderMap), Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = Request::get(page.url.target().map_err(Failed::unanswered)?);
        let authority = page.url.authority.as_deref().unwrap_or_default();
        let host = page.host.clone().map_or_else(|| HeaderValue::try_from(authority), Ok);
        if let Some(fields) = request.headers_mut() {
            fields.insert(header::HOST, host.map_err(Failed::unanswered)?);
            self.fields(fields, referer);
            fields.append(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(Failed::unanswered)?;
        let (mut sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(MAX_FIELDS)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Failed::unanswered)?;
        driven(connection, async { self.read(sender.send_request(request).await).await }).await
    }

    async fn http2<S>(
        &self,
        page: &Page,
        referer: Option<&HeaderValue>,
        stream: S,
    ) -> Result<(StatusCode, HeaderMap), Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let target = page.url.target().map_err(Failed::unanswered)?;
        let named = page.host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let authority = named.map_or_else(|| page.url.authority.clone().unwrap_or_default(), |named| named.to_string());
        let mut request = Request::get(format!("https://{authority}{target}"));
        if let Some(fields) = request.headers_mut() {
            self.fields(fields, referer);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(Failed::unanswered)?;
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(Failed::unanswered)?;
        driven(connection, async { self.read(sender.send_request(request).await).await }).await
    }

    /// The head of a response, once its body was read as far as the kubelet reads it.
    async fn read(&self, response: hyper::Result<Response<Incoming>>) -> Result<(StatusCode, HeaderMap), Failed> {
        let (head, mut body) = response.map_err(Failed::unanswered)?.into_parts();
        let read = async {
            let mut left = BODY;
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        };
        if self.hook {
            // An application may send its head at once, and end the body when its work is done.
            read.await;
        } else {
            let _ = tokio::time::timeout(BODY_TIME, read).await;
        }
        Ok((head.status, head.headers))
    }

    /// The fields of a request but `Host`. Those of the manifest replace what is sent by default.
    fn fields(&self, fields: &mut HeaderMap, referer: Option<&HeaderValue>) {
        let ours =
            [header::HOST, header::USER_AGENT, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER];
        for (name, value) in self.headers.iter().filter(|(name, _)| !ours.contains(name)) {
            fields.append(name, value.clone());
        }
        match fields.get(header::ACCEPT) {
            None => drop(fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"))),
            Some(accept) if accept.is_empty() => drop(fields.remove(header::ACCEPT)),
            Some(_) => {}
        }
        let agent = self.first(&header::USER_AGENT).unwrap_or(self.agent);
        if !agent.is_empty() {
            fields.insert(header::USER_AGENT, agent.clone());
        }
        if let (Some(referer), false) = (referer, fields.contains_key(header::REFERER)) {
            fields.insert(header::REFERER, referer.clone());
        }
    }

    fn first(&self, wanted: &HeaderName) -> Option<&HeaderValue> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
    }
}

/// What comes after a response.
fn next(page: &Page, status: StatusCode, headers: &HeaderMap) -> Result<Step, Failed> {
    let location = headers.get(header::LOCATION).filter(|location| !location.is_empty());
    let (301..=303 | 307 | 308, Some(location)) = (status.as_u16(), location) else { return Ok(Step::Done) };
    let text = String::from_utf8_lossy(location.as_bytes());
    let wrong = |reason| Failed::unanswered(format!("its redirect to {text:?} cannot be followed: {reason}"));
    let reference = Reference::parse(&text).map_err(wrong)?;
    let is_absolute = reference.scheme.is_some();
    let url = reference.from(&page.url);
    if url.host().0 != page.url.host().0 {
        // Another host is not asked; the kubelet takes the redirect for a success with a warning.
        return Ok(Step::Done);
    }
    if !matches!(url.scheme.as_deref(), Some("http" | "https")) {
        return Err(wrong("its scheme is neither http nor https"));
    }
    // A Host of the manifest stays for as long as redirects are relative.
    Ok(Step::Follow(Page { url, host: page.host.clone().filter(|_| !is_absolute) }))
}

enum Step {
    Follow(Page),
    Done,
}

/// The page that a redirect came from, unless it would tell what was encrypted.
fn referer_of(page: &Page, next: &Page) -> Option<HeaderValue> {
    if page.is_tls() && !next.is_tls() {
        return None;
    }
    let Reference { scheme, authority, .. } = &page.url;
    let target = page.url.target().ok()?;
    HeaderValue::try_from(format!("{}://{}{target}", scheme.as_deref()?, authority.as_deref()?)).ok()
}

fn judge(status: StatusCode) -> Result<StatusCode, Failed> {
    if status.is_success() {
        return Ok(StatusCode::OK);
    }
    if status.is_redirection() {
        return Ok(status);
    }
    // The kubelet's Events show the application's own status.
    let shown = if status.is_client_error() || status.is_server_error() { status } else { StatusCode::BAD_GATEWAY };
    Err(Failed { status: shown, reason: format!("it answers {status}"), answered: true })
}
