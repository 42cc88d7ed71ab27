//! An application that speaks HTTP/2 frame by frame, and not as it should: what the client sees of it, and what the
//! streams beside it do.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tulle_testing::client::frames::{self, END_HEADERS, END_STREAM, Frame, PREFACE, block, frame, kind};
use tulle_testing::client::http2::request;
use tulle_testing::client::{Frames, Http2Client, Raw};
use tulle_testing::control::Service;
use tulle_testing::sidecar::Sidecar;
use tulle_testing::wait::{until_ready, within};

use crate::mesh;

/// A head of a reply, with this status.
fn head(stream: u32, flags: u8, status: &str) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | flags, stream, &block(&[(b":status", status.as_bytes())]))
}

/// The sidecar of a client whose one service is played by the test.
struct Played {
    sidecar: Sidecar,
    listener: TcpListener,
}

impl Played {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let control = mesh::control().await;
        control.publish(&Service::http2(&mesh::name("app")).endpoint(&address, None));
        Self { sidecar: mesh::client(&control, &["app"]).await, listener }
    }

    fn addr(&self) -> SocketAddr {
        self.sidecar.outbound(&mesh::name("app"))
    }

    /// The sidecar's next connection, greeted.
    async fn accept(&self) -> Frames {
        let (tcp, _): (TcpStream, _) = within("a connection", self.listener.accept()).await.expect("an open socket");
        Frames::accept(Raw::over(tcp)).await
    }
}

/// The next request: its stream.
async fn asked(app: &mut Frames) -> u32 {
    app.find(|frame| frame.kind == kind::HEADERS).await.expect("a request").stream
}

fn is_reset(stream: u32) -> impl Fn(&Frame) -> bool {
    move |frame| frame.kind == kind::RST_STREAM && frame.stream == stream
}

#[tokio::test]
async fn bytes_after_a_reply_without_a_body_are_no_reply() {
    let played = Played::start().await;
    for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304")] {
        let mut client = Raw::connect(played.addr()).await;
        client
            .send(format!("{method} / HTTP/1.1\r\nhost: app.shop\r\n\r\nGET /next HTTP/1.1\r\nhost: app.shop\r\n\r\n"))
            .await;
        let mut app = played.accept().await;
        let stream = asked(&mut app).await;
        let evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
        app.send([head(stream, 0, status), frame(kind::DATA, END_STREAM, stream, evil)].concat()).await;
        let told = app.find(is_reset(stream)).await.expect("a connection that goes on");
        assert_eq!(told.number(0), 1, "PROTOCOL_ERROR");
        // Either nothing of the response was written yet, or the connection ends behind its head.
        let reply = client.try_response(method).await.expect("a response");
        if reply.header("tulle-reason") == Some("protocol_error") {
            assert_eq!(reply.status, 502, "{method} {status}");
            let next = asked(&mut app).await;
            app.send(head(next, END_STREAM, "200")).await;
            assert_eq!(client.response().await.status, 200, "{method} {status}");
        } else {
            assert_eq!(reply.status.to_string(), status, "{method}");
            client.expect_close().await;
        }
    }
}

#[tokio::test]
async fn a_reply_that_breaks_the_rules_is_an_answer() {
    let played = Played::start().await;
    let client = Http2Client::connect(played.addr()).await;
    let ask = |path: &'static str| client.exchange(request("GET", "app.shop", path, &[]), "", None);
    let act = async {
        let mut app = played.accept().await;
        // One that is answered, so that the connection was used before; then one that waits beside the broken one.
        let first = asked(&mut app).await;
        app.send(head(first, END_STREAM, "200")).await;
        let (slow, broken) = (asked(&mut app).await, asked(&mut app).await);
        app.send(head(broken, END_STREAM, "two")).await;
        assert_eq!(app.find(is_reset(broken)).await.expect("a connection that goes on").number(0), 1);
        app.send(head(slow, END_STREAM, "200")).await;
        app
    };
    let calls = async {
        assert_eq!(ask("/first").await.expect("an answer").status, 200);
        tokio::join!(ask("/slow"), ask("/broken"))
    };
    let (mut app, (slow, broken)) = tokio::join!(act, calls);
    let broken = broken.expect("an answer");
    assert_eq!((broken.status, broken.header("tulle-reason")), (502, Some("protocol_error")));
    assert_eq!(slow.expect("the other stream goes on").status, 200);
    // It was not tried again, here or on another connection.
    let (last, stream) = tokio::join!(ask("/last"), async {
        let stream = asked(&mut app).await;
        app.send(head(stream, END_STREAM, "200")).await;
        stream
    });
    assert_eq!((last.expect("an answer").status, stream), (200, 7));
}

/// A client that asks 30 times, and has left before the sidecar looks.
async fn leave(sidecar: &Sidecar, addr: SocketAddr) {
    let ask = |n: u32| frame(kind::HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &frames::request("GET", "/gone"));
    let requests = (0..30).flat_map(ask).collect::<Vec<_>>();
    sidecar.process().signal("STOP");
    let mut tcp = within("a connection", TcpStream::connect(addr)).await.expect("a listener");
    tcp.write_all(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &requests].concat()).await.expect("room");
    drop(tcp);
    sidecar.process().signal("CONT");
}

#[tokio::test]
async fn requests_of_a_client_that_has_left_go_nowhere() {
    let played = Played::start().await;
    let client = Http2Client::connect(played.addr()).await;
    let ask = |path: &'static str| client.exchange(request("GET", "app.shop", path, &[]), "", None);
    let act = async {
        let mut app = played.accept().await;
        let slow = asked(&mut app).await;
        leave(&played.sidecar, played.addr()).await;
        let gone = ["reason=\"downstream_closed\""];
        until_ready("30 requests of nobody", || async {
            (mesh::metric(&played.sidecar, "tulle_requests_total", &gone).await >= 30.0).then_some(())
        })
        .await;
        app.send(head(slow, END_STREAM, "200")).await;
        app
    };
    let (mut app, slow) = tokio::join!(act, ask("/slow"));
    assert_eq!(slow.expect("an answer").status, 200);
    let (next, stream) = tokio::join!(ask("/next"), async {
        let stream = asked(&mut app).await;
        app.send(head(stream, END_STREAM, "200")).await;
        stream
    });
    assert_eq!((next.expect("an answer").status, stream), (200, 3), "nothing was opened in between");
}

#[tokio::test]
async fn a_head_that_the_application_does_not_take_is_refused_alone() {
    let played = Played::start().await;
    let client = Http2Client::connect(played.addr()).await;
    let ask = |length: usize| {
        let long = "v".repeat(length);
        let head = request("GET", "app.shop", "/", &[("x-long", &long)]);
        client.exchange(head, "", None)
    };
    let act = async {
        let mut app = played.accept().await;
        app.send(frame(kind::SETTINGS, 0, 0, &[[0, 6].as_slice(), &1000u32.to_be_bytes()].concat())).await;
        for _ in 0..2 {
            let stream = asked(&mut app).await;
            app.send(head(stream, END_STREAM, "200")).await;
        }
        app
    };
    let calls = async {
        let first = ask(100).await.expect("an answer");
        let large = ask(1000).await.expect("an answer");
        let next = ask(500).await.expect("an answer, on the same connection");
        assert_eq!((first.status, next.status), (200, 200));
        assert_eq!((large.status, large.header("tulle-reason")), (431, Some("headers_too_large")));
    };
    tokio::join!(act, calls);
}

#[tokio::test]
async fn a_reply_that_came_before_the_connection_ended_arrives() {
    let played = Played::start().await;
    let client = Http2Client::connect(played.addr()).await;
    let act = async {
        for _ in 0..20 {
            let mut app = played.accept().await;
            let stream = asked(&mut app).await;
            let goaway = frame(kind::GOAWAY, 0, 0, &[stream.to_be_bytes(), [0; 4]].concat());
            app.send([head(stream, END_STREAM, "413"), goaway].concat()).await;
            // Closed with most of the request unread: what we write now is answered with a reset.
        }
    };
    let calls = async {
        for round in 0..20 {
            let upload = request("POST", "app.shop", "/", &[]);
            let reply = client.exchange(upload, vec![b'x'; 1 << 20], None).await;
            assert_eq!(reply.map(|reply| reply.status).map_err(|error| error.to_string()), Ok(413), "{round}");
        }
    };
    tokio::join!(act, calls);
}
