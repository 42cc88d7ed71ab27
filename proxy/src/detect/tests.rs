//! Real first bytes of many protocols, ClientHellos made by rustls, and properties over arbitrary bytes.
#![expect(clippy::arithmetic_side_effects, reason = "not a parser")]

use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;

use super::*;

/// The first flight of a TLS client.
fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|token| token.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same message over records of at most `size` bytes.
fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let body = &hello[5..];
    body.chunks(size)
        .flat_map(|chunk| [&[22, 3, 1][..], &u16::try_from(chunk.len()).unwrap().to_be_bytes(), chunk].concat())
        .collect()
}

fn tls(mesh: bool, sni: Option<&str>) -> Option<Spoken> {
    Some(Spoken::Tls(ClientHello { mesh, sni: sni.map(Into::into) }))
}

/// Every prefix needs more or decides as the whole does.
fn assert_monotone(bytes: &[u8]) {
    let whole = classify(bytes);
    // Not every prefix of a long input: joining thousands of records for each would take seconds.
    let step = 1 + bytes.len() / 512;
    for end in (0..bytes.len()).step_by(step) {
        let part = classify(&bytes[..end]);
        assert!(part.is_none() || part == whole, "{part:?} after {end} bytes, {whole:?} at the end");
    }
}

#[test]
fn mend_04_first_bytes_of_protocols() {
    let cases: &[(&[u8], Option<Spoken>)] = &[
        (b"", None),
        (b"GET / HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"GET / HTTP/1.0\r\nHost: a\r\n", Some(Spoken::Http1)),
        (b"GET / HTTP/1.1\r", None),
        (b"GET ", None),
        (b"GET", None),
        (b"GETX", None),
        (b"get / HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"OPTIONS * HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"PROPFIND /dav HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"PROPFIND /dav HTTP/1", None),
        (b"\r\n\r\nGET /", None),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", Some(Spoken::Http1)),
        (b"\r", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Spoken::Http2)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(Spoken::Http2)),
        (b"PRI * HTTP/2.0\r\n\r\nSM", None),
        (b"PRI * HTTP/1.1\r\n", Some(Spoken::Http1)),
        // To forward proxies.
        (b"CONNECT a.test:443 HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"GET http://a.test/ HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"GET ftp://a.test/x HTTP/1.0\r\n", Some(Spoken::HttpLike)),
        // What lenient servers take for a request line.
        (b"GET\t/ HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"GET  / HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"GET / HTTP/1.1\n", Some(Spoken::HttpLike)),
        (b"GET / HTTP/1.1 \r\n", Some(Spoken::HttpLike)),
        (b"GET /a b HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"GET /\xc3\xa4 HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"GET / HTTP/2.0\r\n", Some(Spoken::HttpLike)),
        (b"GET / HTTP/1.10\r\n", Some(Spoken::HttpLike)),
        (b" GET / HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"\n\rGET / HTTP/1.1\r\n", Some(Spoken::HttpLike)),
        (b"PRI * HTTP/2.0\r\n\r\nXX", Some(Spoken::HttpLike)),
        (b"GET /index.html\r\n", Some(Spoken::HttpLike)),
        // A word of HTTP in other protocols: Redis, STOMP, RTSP, ICAP, SIP, a queue, mail.
        (b"GET key\r\n", Some(Spoken::Opaque)),
        (b"CONNECT\naccept-version:1.2\n", Some(Spoken::Opaque)),
        (b"CONNECT\r\naccept-version:1.2\r\n", Some(Spoken::Opaque)),
        (b"OPTIONS rtsp://a.test/stream RTSP/1.0\r\n", Some(Spoken::Opaque)),
        (b"OPTIONS icap://a.test/scan ICAP/1.0\r\n", Some(Spoken::Opaque)),
        (b"OPTIONS sip:a@b.test SIP/2.0\r\n", Some(Spoken::Opaque)),
        (b"PUT 1024 0 60 5\r\nhello\r\n", Some(Spoken::Opaque)),
        (b"DELETE 7\r\n", Some(Spoken::Opaque)),
        (b"GET /\tkey", None),
        (b"LOGIN alice", None),
        (b"LOGIN alice\r\n", Some(Spoken::Opaque)),
        // Redis, memcached, STOMP, SSH, SMTP, IRC, NATS, Postgres, MongoDB, AMQP, MQTT, a bare line feed.
        (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Opaque)),
        (b"get key\r\n", Some(Spoken::Opaque)),
        (b"STOMP\naccept-version:1.2\n", Some(Spoken::Opaque)),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Some(Spoken::Opaque)),
        (b"EHLO client\r\n", Some(Spoken::Opaque)),
        (b"NICK bob\r\nUSER bob 0 * :Bob\r\n", Some(Spoken::Opaque)),
        (b"CONNECT {\"verbose\":false}\r\n", Some(Spoken::Opaque)),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(Spoken::Opaque)),
        (b"\x3f\0\0\0\x01\0\0\0", Some(Spoken::Opaque)),
        (b"AMQP\0\0\x09\x01", Some(Spoken::Opaque)),
        (b"\x10\x0c\0\x04MQTT", Some(Spoken::Opaque)),
        (b"\n", None),
        (b"PUBLISH  two", None),
        // Handshake records that are not a ClientHello.
        (b"\x16", None),
        (b"\x16\x02", Some(Spoken::Opaque)),
        (b"\x16\x03\x05", Some(Spoken::Opaque)),
        (b"\x16\x03\x01\0\0", Some(Spoken::Opaque)),
        (b"\x16\x03\x01\x40\x01", Some(Spoken::Opaque)),
        (b"\x16\x03\x01\0\x05\x02", Some(Spoken::Opaque)),
        (b"\x16\x03\x01\0\x04\x01\0\0\0", Some(Spoken::Opaque)),
        (b"\x16\x03\x01\0\x05\x01\x01\0\0\0", Some(Spoken::Opaque)),
        (b"\x16\x03\x01\0\x01\x01\x17\x03", Some(Spoken::Opaque)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(classify(bytes), *expected, "{}", bytes.escape_ascii());
        assert_monotone(bytes);
    }
    assert_eq!(classify(&[b'A'; 33]), Some(Spoken::HttpLike), "no method is that long");
}

#[test]
fn real_client_hellos() {
    let cases: &[(&str, &[&str], Option<Spoken>)] = &[
        ("reviews.shop", &["istio-h2", "h2"], tls(true, Some("reviews.shop"))),
        ("reviews.shop", &["istio-http/1.1", "istio"], tls(true, Some("reviews.shop"))),
        ("Reviews.Shop", &["h2", "http/1.1", "istio"], tls(true, Some("reviews.shop"))),
        ("reviews.shop", &["h2", "http/1.1"], tls(false, Some("reviews.shop"))),
        ("reviews.shop", &["istio-h3", "xistio"], tls(false, Some("reviews.shop"))),
        ("reviews.shop", &[], tls(false, Some("reviews.shop"))),
        ("10.1.2.3", &["istio"], tls(true, None)),
    ];
    for (name, alpn, expected) in cases {
        let bytes = hello(name, alpn);
        assert_eq!(classify(&bytes), *expected);
        assert_monotone(&bytes);
        for size in [1, 4, 100] {
            let bytes = fragmented(&bytes, size);
            assert_eq!(classify(&bytes), *expected, "records of {size} bytes");
            assert_monotone(&bytes);
        }
    }
}

#[test]
fn another_record_between_fragments_is_not_a_hello() {
    let bytes = fragmented(&hello("a.test", &["istio"]), 100);
    let mut broken = bytes[..105].to_vec();
    broken.extend([21, 3, 1, 0, 2, 1, 0]);
    broken.extend(&bytes[105..]);
    assert_eq!(classify(&broken), Some(Spoken::Opaque));
}

#[test]
fn a_doubled_extension_is_not_a_hello() {
    let mut bytes = hello("a.test", &["istio"]);
    let extension = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
    bytes.extend(extension);
    // Lengths of the record, the message and the extensions, wherever the latter is.
    let add = |bytes: &mut Vec<u8>, at: usize| {
        let length = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + 9;
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
    };
    add(&mut bytes, 3);
    add(&mut bytes, 7);
    let suites = 5 + 4 + 2 + 32 + 1 + usize::from(bytes[43]);
    let compressions = suites + 2 + usize::from(u16::from_be_bytes([bytes[suites], bytes[suites + 1]]));
    let extensions = compressions + 1 + usize::from(bytes[compressions]);
    add(&mut bytes, extensions);
    assert_eq!(classify(&bytes), Some(Spoken::Opaque));
    let at = bytes.len() - 9;
    bytes[at + 1] = 99;
    assert_eq!(classify(&bytes), tls(true, Some("a.test")), "an unknown extension is none of our business");
}

#[test]
fn no_more_than_the_bound_is_looked_at() {
    for (start, expected) in [("PURGE /", Spoken::Http1), ("GET  /", Spoken::HttpLike), ("SET key ", Spoken::HttpLike)]
    {
        let mut bytes = start.as_bytes().to_vec();
        bytes.resize(MAX_BYTES - 1, b'x');
        assert_eq!(classify(&bytes), None);
        bytes.push(b'x');
        assert_eq!(classify(&bytes), Some(expected.clone()));
        bytes.extend(b" HTTP/1.1\r\n");
        assert_eq!(classify(&bytes), Some(expected));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_monotone(&bytes);
    }

    #[test]
    fn arbitrary_texts(text in "(\r\n){0,3}(GET|PRI|CONNECT|[!-~]{1,40})[ \t]{0,2}[!-~]{0,20}[ \r\n]{0,2}(HTTP/[12][.][01x]){0,1}\r{0,1}\n{0,1}") {
        assert_monotone(text.as_bytes());
    }

    #[test]
    fn mutilated_hellos(
        size in 1..600_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = fragmented(&hello("a.test", &["istio-h2", "h2"]), size);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        assert_monotone(&bytes);
        bytes.remove(cut.index(bytes.len()));
        assert_monotone(&bytes);
    }
}

const SECOND: Patience = Patience { silent: Duration::from_secs(1), speaking: Duration::from_secs(1) };
const NONE: Patience = Patience { silent: Duration::ZERO, speaking: Duration::ZERO };

#[tokio::test(start_paused = true)]
async fn sniff_puts_segments_together() {
    let bytes = hello("a.test", &["istio"]);
    let (mut client, mut server) = tokio::io::duplex(7);
    let mut prefix = Vec::new();
    let write = async {
        for segment in bytes.chunks(5) {
            client.write_all(segment).await.unwrap();
        }
    };
    let sniff = sniff(&mut server, &mut prefix, SECOND);
    let (sniffed, ()) = tokio::join!(sniff, write);
    assert_eq!(Some(sniffed.unwrap().spoken), tls(true, Some("a.test")));
    assert_eq!(prefix, bytes);
}

#[tokio::test(start_paused = true)]
async fn sniff_gives_up_on_silence_and_keeps_what_came() {
    let (mut client, mut server) = tokio::io::duplex(64);
    client.write_all(b"PURG").await.unwrap();
    let mut prefix = Vec::new();
    let began = tokio::time::Instant::now();
    let sniffed = sniff(&mut server, &mut prefix, SECOND).await.unwrap();
    assert_eq!(sniffed, Sniffed { spoken: Spoken::Opaque, cause: Cause::Timeout });
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(prefix, b"PURG");
    client.write_all(b"E / HTTP/1.1\r\n").await.unwrap();
    let sniffed = sniff(&mut server, &mut prefix, SECOND).await.unwrap();
    assert_eq!(sniffed, Sniffed { spoken: Spoken::Http1, cause: Cause::Bytes });
}

#[tokio::test(start_paused = true)]
async fn sniff_waits_for_a_first_byte_longer_than_for_the_rest() {
    let (mut client, mut server) = tokio::io::duplex(64);
    let mut prefix = Vec::new();
    let patience = Patience { silent: Duration::from_secs(60), speaking: Duration::from_secs(2) };
    let began = tokio::time::Instant::now();
    let write = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        client.write_all(b"\x16").await.unwrap();
    };
    let (sniffed, ()) = tokio::join!(sniff(&mut server, &mut prefix, patience), write);
    assert_eq!(sniffed.unwrap().cause, Cause::Timeout);
    assert_eq!(began.elapsed().as_secs(), 32);
}

#[tokio::test(start_paused = true)]
async fn sniff_ends_with_the_peer() {
    let (client, mut server) = tokio::io::duplex(64);
    drop(client);
    let sniffed = sniff(&mut server, &mut Vec::new(), SECOND).await.unwrap();
    assert_eq!(sniffed, Sniffed { spoken: Spoken::Opaque, cause: Cause::Closed });
}

#[tokio::test]
async fn sniff_needs_no_read_when_the_prefix_suffices() {
    let (_client, mut server) = tokio::io::duplex(64);
    let mut prefix = b"GET / HTTP/1.1\r\n".to_vec();
    let sniffed = sniff(&mut server, &mut prefix, NONE).await.unwrap();
    assert_eq!(sniffed.spoken, Spoken::Http1);
}
