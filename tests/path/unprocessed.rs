//! Requests that provably were not processed: they are sent again, whatever their method, and are no failures and no
//! retries (RFC 9113 section 6.8, gRFC A6).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::net::{TcpListener, TcpStream};
use tulle_testing::client::frames::{END_HEADERS, END_STREAM, Frame, block, frame, kind};
use tulle_testing::client::http2::request;
use tulle_testing::client::{Frames, Http2Client, Raw, raw};
use tulle_testing::control::{Control, Service};
use tulle_testing::foreign;
use tulle_testing::netns::{Finished, Running};
use tulle_testing::ports;
use tulle_testing::sidecar::Sidecar;
use tulle_testing::wait::within;

use crate::mesh;

/// RST_STREAM with REFUSED_STREAM.
const REFUSED: u32 = 7;

/// nginx in HTTP/2, whose connections end after `requests` requests.
struct Nginx {
    addr: SocketAddr,
    _running: Running,
    dir: tempfile::TempDir,
}

impl Nginx {
    async fn start(requests: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let addr = SocketAddr::new(ports::loopback(), 8080);
        let root = dir.path().display();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr notice;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
             fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
             keepalive_requests {requests};\n\
             server {{ listen {addr} http2; location / {{ return 200 \"page\\n\"; }} }} }}\n"
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).expect("a writable folder");
        let mut command = Command::new("nginx");
        command.args([Path::new("-e"), Path::new("stderr"), Path::new("-p"), dir.path(), Path::new("-c"), &file]);
        let running = Running::start("nginx", command).expect("nginx");
        tulle_testing::wait::until_ready("nginx", || async { TcpStream::connect(addr).await.ok().map(drop) }).await;
        Self { addr, _running: running, dir }
    }

    /// Sends `count` requests to a sidecar, those with a body of `length` bytes if that is not 0; asserts that all of
    /// them are served.
    #[expect(clippy::disallowed_methods, reason = "waiting for a process blocks a thread")]
    async fn load(&self, to: SocketAddr, count: u32, length: usize) {
        let mut command = Command::new("h2load");
        command.args(["-n", &count.to_string(), "-c", "8", "-m", "16", "-H", ":authority: app.shop"]);
        if length > 0 {
            let body = self.dir.path().join("sent");
            std::fs::write(&body, vec![b'x'; length]).expect("a writable folder");
            command.arg("-d").arg(body);
        }
        command.arg(format!("http://{to}/"));
        let done = tokio::task::spawn_blocking(move || Finished::of(command)).await.expect("h2load to end");
        let done = done.expect("h2load");
        let served = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
        let status = format!("{count} 2xx, 0 3xx, 0 4xx, 0 5xx");
        assert!(done.stdout.contains(&served) && done.stdout.contains(&status), "{}", done.stdout);
    }
}

#[tokio::test]
async fn mend_01_connections_that_end_after_some_requests_cost_none() {
    if !foreign::commands(&["nginx", "h2load"]) {
        return;
    }
    for (requests, count) in [(100, 8_000), (1_000, 16_000)] {
        let nginx = Nginx::start(requests).await;
        let control = mesh::control().await;
        let server = mesh::server(&control, "app", &[(8080, "http2", nginx.addr)]).await;
        let endpoint = server.inbound(8080).to_string();
        control.publish(&Service::http2(&mesh::name("app")).endpoint(&endpoint, Some(&mesh::id("app"))));
        control.publish(&Service::http2(&mesh::name("plain")).endpoint(&nginx.addr.to_string(), None));
        let sidecar = mesh::client(&control, &["app", "plain"]).await;
        for service in ["plain", "app"] {
            let to = sidecar.outbound(&mesh::name(service));
            nginx.load(to, count, 0).await;
            nginx.load(to, count / 8, 64 * 1024).await;
        }
        for sidecar in [&sidecar, &server] {
            assert_eq!(mesh::metric(sidecar, "tulle_retries_total", &[]).await, 0.0, "not a retry");
            assert_eq!(mesh::metric(sidecar, "tulle_retry_budget_exhausted_total", &[]).await, 0.0);
        }
    }
}

/// A sidecar whose one service is played by the test, and its client.
struct Played {
    sidecar: Sidecar,
    listener: TcpListener,
    _control: Control,
}

impl Played {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let control = mesh::control().await;
        // Nothing may be retried: what was not processed is sent again all the same.
        control.publish(&Service::http2(&mesh::name("app")).endpoint(&address, None).retry("connect-failure", 0));
        Self { sidecar: mesh::client(&control, &["app"]).await, listener, _control: control }
    }

    fn addr(&self) -> SocketAddr {
        self.sidecar.outbound(&mesh::name("app"))
    }

    async fn accept(&self) -> Frames {
        let (tcp, _): (TcpStream, _) = within("a connection", self.listener.accept()).await.expect("an open socket");
        Frames::accept(Raw::over(tcp)).await
    }

    async fn post(&self, client: &Http2Client, body: Vec<u8>) -> Result<u16, String> {
        let reply = client.exchange(request("POST", "app.shop", "/", &[]), body, None).await;
        reply.map(|reply| reply.status).map_err(|error| error.to_string())
    }
}

fn head(stream: u32, status: &str) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(&[(b":status", status.as_bytes())]))
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn refuse(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &REFUSED.to_be_bytes())
}

/// What a server says of a stream that it did not process.
type Sign = fn(u32) -> Vec<u8>;

/// The connection's window is opened again for so many bytes.
fn room(bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes())
}

/// The next request that is there whole: its stream and the length of its body.
async fn whole(app: &mut Frames) -> (u32, usize) {
    let mut length = 0;
    let last = |frame: &Frame| frame.flags & END_STREAM != 0 && matches!(frame.kind, kind::HEADERS | kind::DATA);
    loop {
        let frame = app.next().await.expect("a request");
        if frame.kind == kind::DATA {
            length += frame.payload.len();
        }
        if last(&frame) {
            return (frame.stream, length);
        }
    }
}

#[tokio::test]
async fn mend_01_every_sign_that_a_stream_was_not_processed_is_one() {
    let played = Played::start().await;
    // What the server says instead of a reply to the first stream of a connection, and whether it closes then.
    let signs: [(&str, Sign, bool); 6] = [
        ("GOAWAY, nothing taken", |_| goaway(0, 0), false),
        ("GOAWAY, nothing taken, and the end", |_| goaway(0, 0), true),
        ("GOAWAY for an error", |_| goaway(0, 11), true),
        ("GOAWAY in two steps", |_| [goaway(0x7fff_ffff, 0), goaway(0, 0)].concat(), true),
        ("REFUSED_STREAM and GOAWAY", |stream| [goaway(stream, 0), refuse(stream)].concat(), true),
        ("REFUSED_STREAM, the connection goes on", |stream| [refuse(stream), room(60_000)].concat(), false),
    ];
    for (name, sign, closes) in signs {
        let client = Http2Client::connect(played.addr()).await;
        let act = async {
            let mut app = played.accept().await;
            let (stream, length) = whole(&mut app).await;
            assert_eq!((stream, length), (1, 60_000), "{name}");
            app.send(sign(stream)).await;
            let mut next = if name.ends_with("goes on") {
                app
            } else {
                if closes {
                    drop(app);
                }
                played.accept().await
            };
            let (stream, length) = whole(&mut next).await;
            next.send(head(stream, "200")).await;
            // Ends it, so that the next sign meets a connection of its own.
            next.send(goaway(0x7fff_ffff, 0)).await;
            let _ = next.farewell().await;
            length
        };
        let (status, length) = tokio::join!(played.post(&client, vec![b'x'; 60_000]), act);
        assert_eq!((status, length), (Ok(200), 60_000), "{name}");
    }
    assert_eq!(mesh::metric(&played.sidecar, "tulle_retries_total", &[]).await, 0.0, "not a retry");
    let bytes = mesh::metric(&played.sidecar, "tulle_request_bytes_total", &["destination_service=\"app\""]).await;
    assert_eq!(bytes, 6.0 * 60_000.0, "each body counts once");
}

#[tokio::test]
async fn mend_01_a_stream_refused_in_the_middle_of_its_body_is_sent_again() {
    let played = Played::start().await;
    let client = Http2Client::connect(played.addr()).await;
    let (reply, mut send) =
        client.start(request("POST", "app.shop", "/", &[]), false).await.expect("room for a stream");
    send.send_data(vec![b'a'; 20_000].into(), false).expect("an open stream");
    let mut app = played.accept().await;
    let first = app.find(|frame| frame.kind == kind::DATA).await.expect("a body").stream;
    app.send(refuse(first)).await;
    let again = app.find(|frame| frame.kind == kind::HEADERS).await.expect("the request again").stream;
    send.send_data(vec![b'b'; 20_000].into(), true).expect("an open stream");
    let (stream, length) = whole(&mut app).await;
    assert_eq!((stream, length), (again, 40_000));
    app.send(head(stream, "200")).await;
    assert_eq!(within("a reply", reply).await.expect("a head").status(), 200);
}

#[tokio::test]
async fn mend_01_a_server_that_refuses_everything_is_asked_a_bounded_number_of_times() {
    let played = Played::start().await;
    for refuses in [true, false] {
        let client = Http2Client::connect(played.addr()).await;
        let act = async {
            let mut asked = 0;
            loop {
                let mut app = played.accept().await;
                while let Some(frame) = app.next().await {
                    if frame.kind == kind::HEADERS {
                        asked += 1;
                        app.send(if refuses { refuse(frame.stream) } else { goaway(0, 0) }).await;
                    }
                    if asked > 100 {
                        return asked;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        let asking = async {
            let reply = client.exchange(request("POST", "app.shop", "/", &[]), "x", None).await.expect("a reply");
            assert_eq!(reply.status, 502);
            reply.header("tulle-reason").map(ToOwned::to_owned)
        };
        tokio::select! {
            asked = act => panic!("asked {asked} times"),
            reason = asking => {
                let expected = if refuses { "upstream_reset" } else { "upstream_closed" };
                assert_eq!(reason.as_deref(), Some(expected));
            }
        }
    }
}

#[tokio::test]
async fn mend_01_streams_are_few_until_the_settings_are_there() {
    let played = Played::start().await;
    let client = Http2Client::connect(played.addr()).await;
    let calls = eight(&played, &client);
    let act = async {
        let (tcp, _): (TcpStream, _) = within("a connection", played.listener.accept()).await.expect("a socket");
        let mut raw = Raw::over(tcp);
        within("a preface", raw.read_exact(24)).await;
        let mut app = Frames::silent(raw);
        let first = app.find(|frame| frame.kind == kind::HEADERS).await.expect("a request").stream;
        // Nothing else comes, neither here nor on another connection.
        while let Some(frame) = app.waiting().await {
            assert_ne!(frame.kind, kind::HEADERS, "a second stream");
        }
        let few = [[0, 3].as_slice(), &2u32.to_be_bytes()].concat();
        app.send([frame(kind::SETTINGS, 0, 0, &few), head(first, "200")].concat()).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(app.find(|frame| frame.kind == kind::HEADERS).await.expect("a request").stream);
        }
        // The other five have found another connection.
        let mut second = played.accept().await;
        for _ in 0..5 {
            let stream = second.find(|frame| frame.kind == kind::HEADERS).await.expect("a request").stream;
            second.send(head(stream, "200")).await;
        }
        for stream in open {
            app.send(head(stream, "200")).await;
        }
        (app, second)
    };
    let (statuses, _connections) = tokio::join!(calls, act);
    assert_eq!(statuses, [200; 8]);
}

/// Eight requests at once.
async fn eight(played: &Played, client: &Http2Client) -> [u16; 8] {
    let one = || async { played.post(client, Vec::new()).await.expect("a reply") };
    let four = || async {
        let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
        [a, b, c, d]
    };
    let ([a, b, c, d], [e, f, g, h]) = tokio::join!(four(), four());
    [a, b, c, d, e, f, g, h]
}

/// An idle HTTP/1 connection on which the server says 408 and closes, at the moment at which it is used again.
#[tokio::test]
async fn mend_01_a_timeout_of_an_idle_connection_is_no_reply_to_the_next_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let control = mesh::control().await;
    let address = listener.local_addr().expect("bound").to_string();
    control.publish(&Service::http(&mesh::name("app")).endpoint(&address, None).retry(mesh::SAFE, 2));
    let sidecar = mesh::client(&control, &["app"]).await;
    let act = async {
        let accept = || async { Raw::over(within("a connection", listener.accept()).await.expect("a socket").0) };
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let mut app = accept().await;
        assert!(app.read_until("\r\n\r\n").await.starts_with(b"GET /first"));
        app.send(ok).await;
        assert!(app.read_until("\r\n\r\n").await.starts_with(b"GET /second"));
        app.send("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        drop(app);
        let mut app = accept().await;
        assert!(app.read_until("\r\n\r\n").await.starts_with(b"GET /second"));
        app.send(ok).await;
        app
    };
    let calls = async {
        let to = sidecar.outbound(&mesh::name("app"));
        let first = raw::get(to, "/first", "app.shop").await.status;
        (first, raw::get(to, "/second", "app.shop").await.status)
    };
    let (_app, statuses) = tokio::join!(act, calls);
    assert_eq!(statuses, (200, 200));
}
