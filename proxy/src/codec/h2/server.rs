//! Requests off a server connection, replies back.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use super::body::{BodyReader, BodyWriter, Handle};
use super::drive::{Event, Wire};
use super::engine::Engine;
use super::error::{H2Error, ResetCode};
use super::head::Refused;
use super::hpack::encode::Encoder;
use super::write;
use crate::codec::h1::parse::Limits;
use crate::codec::head::{Edit, RequestHead, ResponseHead};
use crate::conn::Io;

/// A connection on which a peer opens streams.
pub(crate) struct Connection(Wire);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// A request: head, body, and where the reply goes.
pub(crate) type Call = (RequestHead, BodyReader, Reply);

/// What a peer opened a stream for.
#[derive(Debug)]
pub(crate) enum Arrival {
    Call(Call),
    /// A request that breaks the rules: it is to be answered, or reset.
    Refused(Refused, Reply),
}

impl Connection {
    /// Exchanges prefaces. `limits` are those of a request's head, decoded.
    pub(crate) async fn accept(io: Io, limits: Limits) -> Result<Self, H2Error> {
        let mut wire = Wire::new(io, Engine::new(true, limits));
        poll_fn(|cx| wire.poll_greeting(cx)).await?;
        Ok(Self(wire))
    }

    /// The next request; none when the connection is over. Also moves every stream's frames, so it must be polled all
    /// the time. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Arrival, H2Error>> {
        let arrived = match poll_fn(|cx| self.0.poll(cx)).await {
            Event::Arrived(arrived) => arrived,
            Event::Over(error) => return error.map(Err),
        };
        let reply = Reply { stream: Handle::held(Rc::clone(self.0.engine()), arrived.slot) };
        Some(Ok(match arrived.head {
            Ok(head) => {
                let body = BodyReader::new(reply.stream.clone());
                Arrival::Call((RequestHead::H2(head), body, reply))
            }
            Err(refusal) => Arrival::Refused(refusal, reply),
        }))
    }

    /// Whether any stream is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.engine().borrow().streams.count() > 0
    }

    /// Announces the end with GOAWAY: streams that are open go on, new ones are accepted until the peer has heard.
    pub(crate) fn graceful_shutdown(&self) {
        self.0.engine().borrow_mut().retire();
    }

    /// Reads and drops what still comes once the connection is over, up to 1 MiB, until nothing has come for `quiet`: to
    /// close before the peer has would reset the connection, and could destroy what is on its way to it.
    pub(crate) async fn linger(self, quiet: Duration) {
        self.0.linger(quiet).await;
    }

    /// Says GOAWAY and closes, whatever is open.
    pub(crate) fn cut(&self) {
        self.0.engine().borrow_mut().cut();
    }
}

/// Where the reply to one request goes.
pub(crate) struct Reply {
    stream: Handle,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl Reply {
    /// Passes an interim reply on, if there is room for it: nothing waits for one. `100 (Continue)` is what a client may
    /// wait for; it always goes out, once.
    pub(crate) fn informational(&self, head: &ResponseHead) {
        if !self.stream.engine().borrow_mut().may_inform(self.stream.slot(), head.status()) {
            return;
        }
        // A peer that has just left shows when the reply itself is sent.
        let _ = self.send(false, true, |encoder, out| write::response(head, Edit::default(), encoder, out));
    }

    /// Sends the head; `end`: there is no body.
    pub(crate) fn head(&self, head: &ResponseHead, edit: Edit<'_>, end: bool) -> Result<BodyWriter, H2Error> {
        self.send(end, false, |encoder, out| write::response(head, edit, encoder, out))?;
        Ok(BodyWriter::new(self.stream.clone(), end))
    }

    /// Answers by ourselves, without a body.
    pub(crate) fn own(&self, status: u16, extra: &[(&'static str, &str)]) -> Result<(), H2Error> {
        self.send(true, false, |encoder, out| {
            Encoder::status(status, out);
            for (name, value) in extra {
                encoder.field(name.as_bytes(), value.as_bytes(), out);
            }
        })
    }

    fn send(&self, end: bool, interim: bool, fields: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Result<(), H2Error> {
        self.stream.engine().borrow_mut().reply(self.stream.slot(), end, interim, fields)
    }

    /// Resets the stream.
    pub(crate) fn reset(&self, code: ResetCode) {
        self.stream.reset(code);
    }

    /// Whether the stream has failed.
    pub(crate) fn is_gone(&self) -> bool {
        self.stream.engine().borrow_mut().is_gone(self.stream.slot())
    }

    /// Waits until the peer resets the stream. Cancel safe.
    pub(crate) async fn gone(&self) {
        self.stream.gone().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::super::frame::{self, Head, flag, kind};
    use super::super::hpack::decode::Decoder;
    use super::*;
    use crate::codec::body::{Chunk, Data};
    use crate::conn::Socket;

    const LIMITS: Limits = Limits { bytes: 60_000, fields: 100 };
    /// Less than a sending socket takes, more than a receiving one of the least size.
    const BODY: usize = 300_000;

    fn response() -> ResponseHead {
        let mut fields = super::super::head::Collector::new(LIMITS);
        Decoder::default().decode(&[0x88], &mut fields).expect("a block");
        ResponseHead::H2(fields.response().expect("a head"))
    }

    /// Answers one request with [`BODY`], and ends.
    async fn serve(listener: TcpListener, over: tokio::sync::oneshot::Sender<()>) {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let io = Io::Plain(Socket::new(tcp, Vec::new()));
        let mut connection = Connection::accept(io, LIMITS).await.expect("a preface");
        let Some(Ok(Arrival::Call((_, _, reply)))) = connection.next().await else { panic!("a request") };
        let mut writer = reply.head(&response(), Edit::default(), false).expect("a stream");
        let chunk = Chunk { data: Data::Shared(vec![7; BODY].into()), last: true };
        tokio::select! {
            sent = writer.write(chunk) => sent.expect("sent"),
            _ = connection.next() => panic!("it goes on"),
        }
        connection.cut();
        assert!(connection.next().await.is_none());
        over.send(()).expect("a client");
        connection.linger(Duration::from_secs(20)).await;
    }

    /// What the peer says after the end, a PING or a window, would reset a connection that is closed, and destroy what
    /// is still on its way.
    #[tokio::test]
    async fn the_last_reply_arrives_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (over, ended) = tokio::sync::oneshot::channel();
        let client = async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut tcp = socket.connect(addr).await.unwrap();
            let mut out = frame::PREFACE.to_vec();
            Head::write(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff], &mut out);
            Head::write(kind::WINDOW_UPDATE, 0, 0, &[0x3f, 0, 0, 0], &mut out);
            Head::write(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, 1, b"\x82\x86\x84\x41\x01a", &mut out);
            tcp.write_all(&out).await.unwrap();
            ended.await.unwrap();
            let mut ping = Vec::new();
            Head::write(kind::PING, 0, 0, &[0; 8], &mut ping);
            tcp.write_all(&ping).await.unwrap();
            let mut all = Vec::new();
            tcp.read_to_end(&mut all).await.expect("the end, and no reset");
            assert!(all.len() > BODY, "{} bytes", all.len());
        };
        tokio::join!(serve(listener, over), client);
    }
}
