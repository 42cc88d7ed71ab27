//! Applications of all kinds, at the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config::bootstrap::{Check, Reference};

/// An application that answers every connection with `reply`, or never when there is none.
async fn application(reply: Option<&'static [u8]>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "the other side of a test")]
    let task = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            if let Some(reply) = reply {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(reply).await;
            } else {
                kept.push(socket);
            }
        }
    });
    (port, task)
}

/// Longer than any machine takes for what is to succeed.
const LONG: Duration = Duration::from_secs(60);

async fn ask(check: Check, port: u16, timeout: Duration) -> (u16, String) {
    let reply = perform(check, port, Some(timeout)).await.unwrap();
    (reply.status.as_u16(), reply.body)
}

/// As the kubelet asks; a hook without `timeout`.
async fn perform(check: Check, port: u16, timeout: Option<Duration>) -> Result<Reply, Unanswered> {
    let probe = Probe { check, port, timeout };
    let application = Application { probes: [("/p".to_owned(), Ok(probe))].into(), ..Application::default() };
    let kubelet = [(header::USER_AGENT, HeaderValue::from_static("kube-probe/1.34"))].into_iter().collect();
    assert!(application.probe("/other", &kubelet).await.is_none());
    assert_eq!(application.is_hook("/p"), timeout.is_none());
    application.probe("/p", &kubelet).await.unwrap()
}

fn http() -> Check {
    get(false, &[])
}

fn get(tls: bool, headers: &[(&str, &str)]) -> Check {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Check::Http { tls, page: Reference::of_probe("/live"), headers }
}

#[tokio::test]
async fn an_http_probe_has_the_applications_status() {
    for (reply, status) in [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice(), 200),
        (b"HTTP/1.0 204 No Content\r\nX-Folded: a\r\n b\r\n\r\n", 200),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", 500),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", 200),
        (b"nonsense\r\n\r\n", 503),
        (b"", 503),
    ] {
        let (port, _task) = application(Some(reply)).await;
        let (got, body) = ask(http(), port, LONG).await;
        assert_eq!(got, status, "{body} for {}", String::from_utf8_lossy(reply));
    }
}

#[tokio::test]
async fn an_application_that_says_nothing_fails_in_its_time() {
    let (port, _task) = application(None).await;
    let grpc = || Check::Grpc { service: String::new() };
    let tls = get(true, &[]);
    for check in [http(), grpc(), tls] {
        let (status, body) = ask(check, port, Duration::from_millis(100)).await;
        assert_eq!(status, 504, "{body}");
    }
    assert_eq!(ask(Check::Tcp, port, LONG).await.0, 200);
}

#[tokio::test]
async fn an_application_that_is_not_there_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for check in [http(), Check::Tcp, Check::Grpc { service: "s".to_owned() }] {
        let (status, body) = ask(check, port, LONG).await;
        assert_eq!(status, 503);
        assert!(body.contains("refused"), "{body}");
    }
}

#[tokio::test]
async fn metrics_are_merged_and_never_fail() {
    let ours = "# HELP process_open_fds Fds.\n# TYPE process_open_fds gauge\nprocess_open_fds 1\ntulle_ready 1\n";
    let good = b"HTTP/1.1 200 OK\r\n\r\n# TYPE process_open_fds gauge\nprocess_open_fds 2\nshop_orders 3\n# EOF\n";
    let bad: [&'static [u8]; 3] = [
        b"HTTP/1.1 500 No\r\n\r\nx 1\n",
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx 1",
    ];
    let merged = async |reply| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            socket.write_all(reply).await.unwrap();
        };
        let wanted = Scrape { port, page: Reference::of_probe("/metrics") };
        let application = Application { scrape: Some(wanted), ..Application::default() };
        tokio::join!(application.merge(ours.to_owned()), serve).0
    };
    let both = merged(good).await;
    assert!(
        both.ends_with("tulle_app_scrape_up 1\n# TYPE process_open_fds gauge\nprocess_open_fds 2\nshop_orders 3\n"),
        "{both}"
    );
    assert!(
        both.contains("tulle_ready 1\n") && !both.contains("process_open_fds 1") && !both.contains("EOF"),
        "{both}"
    );
    for reply in bad {
        let alone = merged(reply).await;
        assert!(alone.starts_with(ours) && alone.ends_with("tulle_app_scrape_up 0\n"), "{alone}");
    }
    assert_eq!(Application::default().merge(ours.to_owned()).await, ours);
}

/// An application that answers by path, and notes what was asked.
async fn pages(reply: impl Fn(&str, u16) -> String + Send + 'static) -> (u16, Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&asked);
    #[expect(clippy::disallowed_methods, reason = "the other side of a test")]
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let read = socket.read(&mut request).await.unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            noted.lock().unwrap().push(request);
            let _ = socket.write_all(reply(&path, port).as_bytes()).await;
        }
    });
    (port, asked, task)
}

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

const BROKEN: &str = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn mend_23_redirects_are_followed_on_the_same_host() {
    let (broken, _, _task) = pages(|_, _| BROKEN.to_owned()).await;
    for (status, location, expected, hops) in [
        (302, "/good", 200, 2),
        (307, "good?x", 200, 2),
        (308, "http://127.0.0.1:PORT/good", 200, 2),
        (301, "/bad", 500, 2),
        (302, "http://127.0.0.1:BROKEN/", 500, 1),
        // Other hosts are not asked: the kubelet shows a warning, and counts it as a success.
        (302, "http://localhost:PORT/bad", 302, 1),
        (302, "//other.example/bad", 302, 1),
        // What is no redirect.
        (302, "", 302, 1),
        (304, "/bad", 304, 1),
        (300, "/bad", 300, 1),
        // What cannot be followed.
        (302, "/live", 503, 10),
        (302, "ftp://127.0.0.1/", 503, 1),
        (302, "http://127.0.0.1:99999/", 503, 1),
        (302, "/%zz", 503, 1),
    ] {
        let (port, asked, _task) = pages(move |path, port| match path.split('?').next() {
            Some("/live") => {
                let location = location.replace("PORT", &port.to_string()).replace("BROKEN", &broken.to_string());
                redirect(status, &location)
            }
            Some("/good") => OK.to_owned(),
            _ => BROKEN.to_owned(),
        })
        .await;
        let (got, body) = ask(http(), port, LONG).await;
        assert_eq!((got, asked.lock().unwrap().len()), (expected, hops), "{status} {location}: {body}");
    }
}

#[tokio::test]
async fn mend_23_the_fields_of_a_manifest_replace_what_is_sent_by_default() {
    let (port, asked, _task) = pages(|path, port| {
        // Absolute ones lose the Host of the manifest, relative ones keep it.
        if path == "/live" {
            redirect(302, "/a")
        } else if path == "/a" {
            redirect(302, &format!("http://127.0.0.1:{port}/b"))
        } else {
            OK.to_owned()
        }
    })
    .await;
    let sent = async |headers: &[(&str, &str)]| {
        assert_eq!(ask(get(false, headers), port, LONG).await.0, 200);
        std::mem::take(&mut *asked.lock().unwrap())
    };
    let own = format!("127.0.0.1:{port}");
    let default = sent(&[]).await;
    assert_eq!(
        default[0],
        format!(
            "GET /live HTTP/1.1\r\nHost: {own}\r\nAccept: */*\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n"
        )
    );
    assert!(default[1].contains(&format!("Referer: http://{own}/live\r\n")), "{}", default[1]);
    let given = sent(&[("Host", "web"), ("User-Agent", "me"), ("Accept", "text/x"), ("X-A", "1"), ("x-a", "2")]).await;
    for part in ["Host: web\r\n", "User-Agent: me\r\n", "Accept: text/x\r\n", "X-A: 1\r\n", "X-A: 2\r\n"] {
        assert!(given[0].contains(part) && given[1].contains(part), "{part} {given:?}");
        assert_eq!(given[2].contains(part), part != "Host: web\r\n", "{part} {given:?}");
    }
    assert!(!given[0].contains("*/*") && !given[0].contains("kube-probe") && !given[0].contains(&own), "{given:?}");
    let empty = sent(&[("Host", ""), ("User-Agent", ""), ("Accept", ""), ("Content-Length", "7")]).await;
    assert!(empty[0].contains(&format!("Host: {own}\r\n")), "{empty:?}");
    for part in ["User-Agent", "Accept", "Content-Length"] {
        assert!(!empty[0].contains(part), "{part} {empty:?}");
    }
}

#[tokio::test]
async fn mend_23_a_hook_has_no_time_limit_and_any_status_is_a_success() {
    for reply in [BROKEN, OK, "HTTP/1.1 302 Found\r\nLocation: http://other/\r\n\r\n"] {
        let (port, _, _task) = pages(|_, _| reply.to_owned()).await;
        assert_eq!(perform(http(), port, None).await.unwrap().status, 200, "{reply}");
    }
    // One that speaks no TLS is asked without.
    let (port, _, _task) = pages(|_, _| BROKEN.to_owned()).await;
    assert_eq!(perform(get(true, &[]), port, None).await.unwrap().status, 200);

    // It ends with the body, though the head came long before.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hook = Box::pin(perform(http(), listener.local_addr().unwrap().port(), None));
    let mut request = [0; 1024];
    let begin = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let read = socket.read(&mut request).await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await.unwrap();
        (socket, read)
    };
    let (mut socket, read) =
        tokio::select! { biased; early = &mut hook => panic!("{early:?}"), begun = begin => begun };
    assert!(read > 0);
    tokio::time::pause();
    let early = tokio::time::timeout(Duration::from_secs(24 * 3600), &mut hook).await;
    assert!(early.is_err(), "{early:?}");
    tokio::time::resume();
    socket.write_all(b"k").await.unwrap();
    assert_eq!(hook.await.unwrap().status, 200);

    // Nobody answers: the kubelet is not to believe that somebody did.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert_eq!(perform(http(), nobody, None).await.unwrap_err(), Unanswered);
    let (port, _, _task) = pages(|_, _| redirect(302, "/live")).await;
    assert_eq!(perform(http(), port, None).await.unwrap_err(), Unanswered);
}

/// A signature that no key has made.
#[derive(Clone, Copy, Debug)]
struct Unsigned(rustls::SignatureScheme);

impl rustls::sign::SigningKey for Unsigned {
    fn choose_scheme(&self, offered: &[rustls::SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        offered.contains(&self.0).then(|| Box::new(*self) as Box<dyn rustls::sign::Signer>)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::RSA
    }
}

impl rustls::sign::Signer for Unsigned {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![7; 128])
    }

    fn scheme(&self) -> rustls::SignatureScheme {
        self.0
    }
}

#[derive(Debug)]
struct Shown(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Shown {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn mend_23_an_https_probe_verifies_nothing() {
    for (version, scheme, alpn) in [
        (&rustls::version::TLS13, rustls::SignatureScheme::RSA_PSS_SHA256, ""),
        (&rustls::version::TLS13, rustls::SignatureScheme::RSA_PSS_SHA256, "h2"),
        (&rustls::version::TLS12, rustls::SignatureScheme::RSA_PKCS1_SHA256, "http/1.1"),
        (&rustls::version::TLS12, rustls::SignatureScheme::RSA_PKCS1_SHA512, "h2"),
    ] {
        let certificate = rustls::pki_types::CertificateDer::from(b"not even DER".to_vec());
        let key = rustls::sign::CertifiedKey::new(vec![certificate], Arc::new(Unsigned(scheme)));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(Arc::new(key))));
        config.alpn_protocols =
            [alpn].iter().filter(|alpn| !alpn.is_empty()).map(|alpn| alpn.as_bytes().to_vec()).collect();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        #[expect(clippy::disallowed_methods, reason = "the other side of a test")]
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(socket).await else { continue };
                let service = hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
                    let host = request.uri().authority().map(|host| host.as_str().to_owned());
                    let host = host.or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()));
                    let status = if host.as_deref() == Some("web") { 200 } else { 421 };
                    Ok::<_, std::convert::Infallible>(
                        http::Response::builder()
                            .status(status)
                            .body(http_body_util::Empty::<bytes::Bytes>::new())
                            .unwrap(),
                    )
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(io, service)
                    .await;
            }
        });
        let (status, body) = ask(get(true, &[("Host", "web")]), port, LONG).await;
        assert_eq!(status, 200, "{scheme:?} {alpn}: {body}");
        task.abort();
    }
}

#[tokio::test]
async fn mend_23_a_probe_that_cannot_be_read_fails_alone() {
    let (port, _task) = application(Some(OK.as_bytes())).await;
    let good = Ok(Probe { check: http(), port, timeout: Some(LONG) });
    let probes = [("/good".to_owned(), good), ("/bad".to_owned(), Err("its port is no port".to_owned()))].into();
    let application = Application { probes, ..Application::default() };
    let ask = async |path: &str| application.probe(path, &HeaderMap::new()).await.unwrap().unwrap();
    assert_eq!(ask("/good").await.status, 200);
    let bad = ask("/bad").await;
    assert!(bad.status == 500 && bad.body.contains("its port is no port"), "{bad:?}");
}
