//! One record as a line: JSON, or text for people. A peer's bytes cannot break out of their field or their line.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::super::rfc3339::Millis;
use super::{AccessFormat, AccessRecord};
use crate::base::failure::Reason;

/// Appends `record` as one line.
pub(super) fn line(format: AccessFormat, with_query: bool, record: &AccessRecord<'_>, out: &mut Vec<u8>) {
    let path = if with_query { record.path } else { without_query(record.path) };
    // Writing to a Vec cannot fail, and the record has no map whose keys could.
    let _ = match format {
        AccessFormat::Text => text(record, path, out),
        AccessFormat::Json => serde_json::to_writer(&mut *out, &Line::new(record, path)).map_err(Into::into),
    };
    out.push(b'\n');
}

/// A query often holds tokens and personal data.
fn without_query(path: &str) -> &str {
    path.split_once(['?', '#']).map_or(path, |(path, _)| path)
}

/// The JSON form; the order of the fields is that of a connection.
#[derive(Serialize)]
struct Line<'r> {
    #[serde(serialize_with = "display")]
    time: Millis,
    direction: &'static str,
    downstream: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'r str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'r str,
    protocol: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'r str,
    duration_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<SocketAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    route: &'r str,
    attempts: u32,
}

impl<'r> Line<'r> {
    fn new(record: &AccessRecord<'r>, path: &'r str) -> Self {
        Self {
            time: Millis(record.time),
            direction: record.direction.as_str(),
            downstream: canonical(record.downstream),
            peer: record.peer,
            method: record.method,
            authority: record.authority,
            path,
            protocol: record.protocol,
            status: record.status,
            grpc_status: record.grpc_status,
            reason: record.reason.map(Reason::as_str),
            detail: record.detail,
            duration_ms: millis(record.duration),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            upstream: record.upstream.map(canonical),
            cluster: record.cluster,
            route: record.route,
            attempts: record.attempts,
        }
    }
}

/// `TIME DIRECTION DOWNSTREAM PEER "METHOD AUTHORITY PATH PROTOCOL" STATUS grpc=N reason=R MSms REQUEST/RESPONSE
/// UPSTREAM CLUSTER ROUTE attempts=N detail="D"`; what is not there is `-`, and no detail is left out.
fn text(record: &AccessRecord<'_>, path: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
    let (time, direction) = (Millis(record.time), record.direction.as_str());
    write!(out, "{time} {direction} {} ", canonical(record.downstream))?;
    word(record.peer.unwrap_or(""), out);
    out.extend_from_slice(b" \"");
    for field in [record.method, record.authority, path] {
        word(field, out);
        out.push(b' ');
    }
    word(record.protocol, out);
    out.extend_from_slice(b"\" ");
    number(record.status, out)?;
    out.extend_from_slice(b" grpc=");
    number(record.grpc_status, out)?;
    let reason = record.reason.map_or("-", Reason::as_str);
    let (duration, sent, received) = (millis(record.duration), record.request_bytes, record.response_bytes);
    write!(out, " reason={reason} {duration:.3}ms {sent}/{received} ")?;
    number(record.upstream.map(canonical), out)?;
    for field in [record.cluster, record.route] {
        out.push(b' ');
        word(field, out);
    }
    write!(out, " attempts={}", record.attempts)?;
    if !record.detail.is_empty() {
        out.extend_from_slice(b" detail=\"");
        let mut words = record.detail.split(' ');
        word(words.next().unwrap_or_default(), out);
        for next in words {
            out.push(b' ');
            word(next, out);
        }
        out.push(b'"');
    }
    Ok(())
}

/// Visible ASCII as it is; every other byte, quotes and backslashes as `\xNN`.
fn word(value: &str, out: &mut Vec<u8>) {
    if value.is_empty() {
        out.push(b'-');
    }
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' {
            out.push(byte);
        } else {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

fn number(value: Option<impl std::fmt::Display>, out: &mut Vec<u8>) -> std::io::Result<()> {
    match value {
        Some(value) => write!(out, "{value}"),
        None => out.write_all(b"-"),
    }
}

/// Milliseconds with microseconds as their fraction.
fn millis(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn display<S: Serializer>(value: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
