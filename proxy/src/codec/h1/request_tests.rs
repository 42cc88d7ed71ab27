//! The tables of request heads: what is refused, and how, and what is accepted. Rows carry the ids of their cases.

use super::parse::{self, Framing, HeadError, Limits, Request};

const LIMITS: Limits = Limits { bytes: 65_535, fields: 100 };

fn parse(head: impl AsRef<[u8]>) -> Result<Option<(Request, usize)>, HeadError> {
    parse::request(head.as_ref(), LIMITS)
}

/// A request whose fields after `Host` are `fields`, each line with its end.
fn with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [b"POST /f HTTP/1.1\r\nHost: a.test\r\n", fields.as_ref(), b"\r\n"].concat()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET /f HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

fn line(line: impl AsRef<[u8]>) -> Vec<u8> {
    [line.as_ref(), b"\r\nHost: a.test\r\n\r\n"].concat()
}

fn accepted(what: &str, head: impl AsRef<[u8]>) -> Request {
    let head = head.as_ref();
    match parse(head) {
        Ok(Some((request, length))) => {
            assert_eq!(length, head.len(), "{what}");
            request
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Refused whole, and refused or waited for at every shorter length: never taken for something else.
fn refused(what: &str, head: impl AsRef<[u8]>) {
    let head = head.as_ref();
    let shown = String::from_utf8_lossy(head);
    match parse(head) {
        Err(HeadError::Lexical(_) | HeadError::Framing(_) | HeadError::Target(_)) => {}
        other => panic!("{what} {shown:?}: {other:?}"),
    }
    for end in 0..head.len() {
        assert!(!matches!(parse(&head[..end]), Ok(Some(_))), "{what} {shown:?} was accepted at {end} bytes");
    }
}

#[test]
fn fr_01_to_05_transfer_encoding() {
    for value in ["chunked", " chunked", "chunked ", "\tchunked", "chunked\t", "Chunked", "CHUNKED"] {
        let request = accepted("FR-03", with(format!("Transfer-Encoding: {value}\r\n")));
        assert_eq!(request.framing, Framing::Chunked, "{value:?}");
    }
    let values: [&[u8]; 18] = [
        b"xchunked",
        b"identity",
        b"",
        b" ",
        b"\"chunked\"",
        b"chunked;q=1",
        b"chunked, identity",
        b"\x0bchunked",
        b"\x0cchunked",
        b"\xa0chunked\xa0",
        b"\xffchunked\xff",
        b"blegh",
        b"chunked, chunked",
        b",chunked",
        b"chunked,",
        b"gzip, chunked",
        b"identity, chunked",
        b"chun\0ked",
    ];
    for value in values {
        refused("FR-03", with([b"Transfer-Encoding: ", value, b"\r\n"].concat()));
    }
    for (first, second) in [("chunked", "chunked"), ("chunked", "identity"), ("identity", "chunked"), ("", "chunked")] {
        refused("FR-04", with(format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n")));
    }
    refused("FR-01", with("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"));
    refused("FR-02", with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"));
    refused("FR-02", with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"));
    refused("FR-05", "POST /f HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    refused("FR-05", "POST /f HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n");
}

#[test]
fn fr_07_to_11_lengths() {
    refused("FR-07", with("Transfer-Encoding : chunked\r\n"));
    refused("FR-07", with("Content-Length : 34\r\n"));
    refused("FR-07", with("Content-Length\t: 34\r\n"));
    for (value, framing) in [
        ("0", Framing::None),
        ("2", Framing::Length(2)),
        ("  007\t", Framing::Length(7)),
        ("1099511627776", Framing::Length(1 << 40)),
    ] {
        assert_eq!(accepted("FR-11", with(format!("content-length:{value}\r\n"))).framing, framing, "{value:?}");
    }
    let junk = [
        "+1_0",
        "+1",
        "-48",
        "-0",
        "0x10",
        "1Z",
        "",
        " ",
        "18446744073709551616",
        "99999999999999999999",
        "1 2",
        "1,",
        ",1",
        "2, 2",
        "2, 3",
        "1.0",
        "1e3",
        "\"1\"",
        "\u{661}",
    ];
    for value in junk {
        refused("FR-11", with(format!("Content-Length: {value}\r\n")));
    }
    for (first, second) in [("2", "2"), ("1", "0"), ("0", "1"), ("0", "31"), ("", "43"), ("43", "")] {
        refused("FR-09", with(format!("Content-Length: {first}\r\nX-A: b\r\nContent-Length: {second}\r\n")));
    }
}

#[test]
fn fr_16_to_19_lines_and_names() {
    for head in [
        "POST /f HTTP/1.1\nHost: a.test\n\n",
        "POST /f HTTP/1.1\nHost: a.test\r\n\r\n",
        "POST /f HTTP/1.1\r\nHost: a.test\n\r\n",
        "POST /f HTTP/1.1\r\nHost: a.test\r\nX: y\nContent-Length: 30\r\n\r\n",
        "POST /f HTTP/1.1\r\nHost: a.test\r\nX:\nContent-Length: 30\r\n\r\n",
        "POST /f HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\n",
        "POST /f HTTP/1.1\r\nHost: a.test\r\nX: y\n\n",
        "\nPOST /f HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST /f HTTP/1.1\r\nHost: a.test\r\nX: y\rContent-Length: 30\r\n\r\n",
        "POST /f HTTP/1.1\r\nHost: a.test\r\nX: y\r\r\n\r\n",
        "POST /f HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\rZ: 1\r\n\r\n",
    ] {
        refused("FR-16", head);
    }
    for fields in ["X-A: 1\r\n continued\r\n", "X-A: 1\r\n\tcontinued\r\n", "X-A:\r\n 1\r\n", "X-A: 1\r\n \r\n"] {
        refused("FR-18", with(fields));
    }
    refused("FR-18", "GET /f HTTP/1.1\r\n Host: a.test\r\n\r\n");
    refused("FR-18", "GET /f HTTP/1.1\r\n X: y\r\nHost: a.test\r\n\r\n");
    let names: [&[u8]; 15] = [
        b": x",
        b"no colon",
        b"Content-Length 10",
        b"Header\x85: x",
        b"\xefoo: x",
        b"Te\nst: x",
        b"Transfer-\r\nEncoding: chunked",
        b"a b: x",
        b"a\x00b: x",
        b"a(b: x",
        b"a,b: x",
        b"a/b: x",
        b"a@b: x",
        b"\"a\": x",
        b"a\x7f: x",
    ];
    for name in names {
        refused("FR-19", with([name, b"\r\n"].concat()));
    }
    for value in [&b"a\x00b"[..], b"a\x01b", b"a\x1fb", b"a\x7fb"] {
        refused("a value", with([b"X-A: ", value, b"\r\n"].concat()));
    }
    accepted("a value", with(b"X-A: a\tb \xe4\xff\r\nX-Empty:\r\n!#$%&'*+-.^_`|~1: x\r\n"));
}

#[test]
fn fr_20_request_lines() {
    let lines: [&[u8]; 28] = [
        b"GET  /f HTTP/1.1",
        b"GET /f  HTTP/1.1",
        b"GET\t/f HTTP/1.1",
        b"GET /f\tHTTP/1.1",
        b"GET /f HTTP/1.1 ",
        b" GET /f HTTP/1.1",
        b"GET /f http/1.1",
        b"GET /f HTTP/1.2",
        b"GET /f HTTP/1.32",
        b"GET /f HTTP/2.0",
        b"GET /f HTTP/0.9",
        b"GET /f HTTP/1",
        b"GET /f HTTP/11",
        b"GET /f HTTP/1.",
        b"GET /f HTTP/ 1.1",
        b"GET /f HTTP/4294967295.255",
        b"GET /f",
        b"GET",
        b"GET /\nHTTP/1.1",
        b"GET /\0 HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /\xc3\xa4 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GE(T /f HTTP/1.1",
        b"G\xc3T /f HTTP/1.1",
        b" /f HTTP/1.1",
        b"GET /f HTTP/1.1\x0b",
    ];
    for bad in lines {
        refused("FR-20", line(bad));
    }
    for good in ["M-SEARCH /f HTTP/1.1", "get /f HTTP/1.1", "GET /?q=1&r=%20 HTTP/1.1", "GET //x/../y HTTP/1.1"] {
        accepted("FR-20", line(good));
    }
}

#[test]
fn fr_21_empty_lines_before_the_request() {
    for (before, good) in [("\r\n", true), ("\r\n\r\n", true), ("\r\n\r\n\r\n", false), ("\n", false), ("\r", false)] {
        let head = format!("{before}GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        if good { drop(accepted("FR-21", head)) } else { refused("FR-21", head) }
    }
}

#[test]
fn tg_01_to_03_hosts() {
    refused("TG-01", get(""));
    refused("TG-01", get("X-Host: a\r\n"));
    for (first, second) in [("a", "b"), ("a", "a"), ("a", ""), ("", "a")] {
        refused("TG-02", get(&format!("Host: {first}\r\nHost: {second}\r\n")));
    }
    let bad = [
        "a, b", "a,b", "u@a", "a/admin", "a b", "a:80x", "", "a:99999", "a:-1", ":80", "a:80:80", "[::1", "::1",
        "[zz]", "a\\b", "a?b", "a#b", "http://a", "a\t.b",
    ];
    for host in bad {
        refused("TG-03", get(&format!("Host: {host}\r\n")));
    }
    refused("TG-03", [&b"GET /f HTTP/1.1\r\nHost: a\x00.b\r\n\r\n"[..]].concat());
    for host in ["a.test", "A.Test:80", "a.test:", "[::1]:80", "[::1]", "10.0.0.1:8080", "a_b", "xn--a"] {
        let request = accepted("TG-03", get(&format!("Host: {host}\r\n")));
        assert_eq!(request.raw.text(&request.authority), host);
    }
    let old = accepted("TG-01", "GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.raw.text(&old.authority), "");
}

#[test]
fn tg_04_to_06_targets() {
    let cases = [
        ("GET http://b.test/f", "/f", "b.test"),
        ("GET HTTP://b.test:81/f?x=/", "/f?x=/", "b.test:81"),
        ("GET http://[::1]:81/", "/", "[::1]:81"),
        ("GET http://b.test", "/", "b.test"),
        ("GET http://b.test?x", "/?x", "b.test"),
        ("GET http://b.test:80?x=/y", "/?x=/y", "b.test:80"),
        ("OPTIONS http://b.test?", "/?", "b.test"),
        ("OPTIONS http://b.test", "*", "b.test"),
        ("OPTIONS *", "*", "a.test"),
        ("GET /http://b.test/", "/http://b.test/", "a.test"),
    ];
    for (target, path, authority) in cases {
        let request = accepted("TG-04", line(format!("{target} HTTP/1.1")));
        assert_eq!(request.raw.text(&request.path), path, "{target}");
        assert_eq!(request.raw.text(&request.authority), authority, "{target}");
    }
    let bad = [
        "GET http://u:p@b/f",
        "GET http://u@b/f",
        "GET http://b,c/f",
        "GET http://b:x/f",
        "GET file:///etc/passwd",
        "GET https://b.test/f",
        "GET http:///admin",
        "GET http://",
        "GET http:/b/f",
        "GET http:b",
        "GET ftp://b/f",
        "GET *",
        "GET /f#g",
        "GET http://b.test#g",
        "GET http://?x",
        "POST *",
        "GET admin",
        "GET a.test:80",
        "GET ?x=1",
        "GET \\f",
        "OPTIONS */x",
        "OPTIONS **",
    ];
    for target in bad {
        refused("TG-05", line(format!("{target} HTTP/1.1")));
    }
    for target in ["/x", "http://test/bar", "*", "b", "b:", "u@b:80", "b:80x", ":80"] {
        refused("TN-02", line(format!("CONNECT {target} HTTP/1.1")));
    }
    assert_eq!(parse(line("CONNECT b:80 HTTP/1.1")).err(), Some(HeadError::Connect));
}

#[test]
fn hop_by_hop_fields_that_decide_framing_cannot_be_nominated() {
    for name in ["content-length", "Transfer-Encoding", "host", "x, HOST"] {
        refused("HH", with(format!("Connection: {name}\r\n")));
    }
}

#[test]
fn persistence() {
    let head = |version: &str, fields: &str| format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
    for (version, fields, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: y, close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let request = accepted("HH-05", head(version, fields));
        assert_eq!(request.keep_alive, expected, "{version} {fields:?}");
    }
}

#[test]
fn upgrades() {
    for (fields, expected) in [
        ("Connection: upgrade\r\nUpgrade: websocket\r\n", true),
        ("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", true),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\n", false),
        ("Connection: upgrade\r\nUpgrade:\r\n", false),
        ("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", false),
        ("Connection: upgrade\r\nUpgrade: H2C, websocket\r\n", false),
        ("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", false),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", false),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", true),
        ("Connection: upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n", true),
    ] {
        let request = accepted("TN-05", with(fields));
        assert_eq!(request.upgrade, expected, "{fields:?}");
    }
}

#[test]
fn limits() {
    let sized = |line: usize, field: usize| {
        let padding = |n: usize| "a".repeat(n);
        format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", padding(line), padding(field))
    };
    let rest = sized(0, 0).len();
    accepted("SL-04", sized(0, LIMITS.bytes - rest));
    accepted("SL-04", sized(LIMITS.bytes - rest, 0));
    assert_eq!(parse(sized(0, LIMITS.bytes - rest + 1)).err(), Some(HeadError::TooLarge));
    assert_eq!(parse(sized(100_000, 0)).err(), Some(HeadError::TargetTooLong));
    assert_eq!(parse(&sized(100_000, 0).as_bytes()[..LIMITS.bytes]).err(), Some(HeadError::TargetTooLong));
    let many = |count: usize| with("X: y\r\n".repeat(count - 1));
    accepted("SL-04", many(100));
    assert_eq!(parse(many(101)).err(), Some(HeadError::TooLarge));
    assert_eq!(parse(many(1000)).err(), Some(HeadError::TooLarge));
    // A line that cannot end well is not waited for.
    assert!(matches!(parse(b"GET / HTTP/1.1\r\nHost: a\n"), Err(HeadError::Lexical(_))));
}
