//! Reading HTTP/1 messages off a connection, leniently and keeping every byte: tests judge, this only splits.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A buffer that keeps what was read past the end of the wanted bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// Reads more; false at the end of the stream.
    pub(crate) async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        self.bytes.reserve(16 * 1024);
        let count = from.read_buf(&mut self.bytes).await?;
        Ok(count > 0)
    }

    /// What is buffered.
    pub(crate) fn peek(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the first `count` buffered bytes.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(count.min(self.bytes.len()));
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Takes everything that is buffered.
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Reads up to and including `mark`; `None` when the stream ends before it.
    pub(crate) async fn until(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        mark: &[u8],
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = find(&self.bytes, mark) {
                return Ok(Some(self.take(at + mark.len())));
            }
            if !self.fill(from).await? {
                return Ok(None);
            }
        }
    }

    /// Reads exactly `count` bytes; `None` when the stream ends before.
    pub(crate) async fn exactly(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        count: usize,
    ) -> io::Result<Option<Vec<u8>>> {
        while self.bytes.len() < count {
            if !self.fill(from).await? {
                return Ok(None);
            }
        }
        Ok(Some(self.take(count)))
    }

    /// Reads to the end of the stream.
    pub(crate) async fn rest(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
        while self.fill(from).await? {}
        Ok(self.take_all())
    }
}

/// How the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    Close,
}

/// A head: first line and header lines in order, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// Splits `bytes`; anything that is not `name: value` becomes a field with an empty value.
    pub(crate) fn split(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        Self { first, fields: fields(lines) }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Framing by the header fields alone; `otherwise` where they say nothing.
    pub(crate) fn framing(&self, otherwise: Framing) -> Framing {
        if self.field("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked")) {
            return Framing::Chunked;
        }
        match self.field("content-length").map(|v| v.trim().parse()) {
            Some(Ok(length)) => Framing::Length(length),
            Some(Err(_)) | None => otherwise,
        }
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let present = lines.filter(|line| !line.is_empty());
    present
        .map(|line| line.split_once(':').map_or((line, ""), |pair| pair))
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect()
}

/// A body as it was framed and as it was meant.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    /// Exactly the bytes on the wire.
    pub(crate) raw: Vec<u8>,
    /// Without chunk framing.
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// The stream ended before the body did.
    pub(crate) cut: bool,
}

/// Reads a body.
///
/// # Errors
/// When the connection fails; an early orderly end is [`Body::cut`].
pub(crate) async fn read_body(
    buffer: &mut Buffer,
    from: &mut (impl AsyncRead + Unpin),
    framing: Framing,
) -> io::Result<Body> {
    match framing {
        Framing::None => Ok(Body::default()),
        Framing::Close => {
            let raw = buffer.rest(from).await?;
            Ok(Body { data: raw.clone(), raw, ..Body::default() })
        }
        Framing::Length(length) => match buffer.exactly(from, length).await? {
            Some(raw) => Ok(Body { data: raw.clone(), raw, ..Body::default() }),
            None => {
                let raw = buffer.take_all();
                Ok(Body { data: raw.clone(), raw, cut: true, ..Body::default() })
            }
        },
        Framing::Chunked => read_chunks(buffer, from).await,
    }
}

async fn read_chunks(buffer: &mut Buffer, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Body> {
    let mut body = Body { cut: true, ..Body::default() };
    loop {
        let Some(line) = buffer.until(from, b"\r\n").await? else { return Ok(body) };
        body.raw.extend_from_slice(&line);
        let text = String::from_utf8_lossy(&line);
        let digits = text.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| io::Error::other(format!("chunk size {text:?}")))?;
        if size == 0 {
            break;
        }
        let Some(chunk) = buffer.exactly(from, size + 2).await? else { return Ok(body) };
        body.raw.extend_from_slice(&chunk);
        body.data.extend_from_slice(&chunk[..size]);
    }
    loop {
        let Some(line) = buffer.until(from, b"\r\n").await? else { return Ok(body) };
        body.raw.extend_from_slice(&line);
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            body.cut = false;
            return Ok(body);
        }
        body.trailers.extend(fields(std::iter::once(text.trim_end())));
    }
}

/// Position of `needle` in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
