//! The first bytes of a connection.

use tulle_proxy::detect::{self, MAX_BYTES, Spoken};

/// More bytes never change a decision, and the largest sniff always has one.
pub fn detect(bytes: &[u8]) {
    let whole = detect::classify(bytes);
    assert!(whole.is_some() || bytes.len() < MAX_BYTES, "undecided after {} bytes", bytes.len());
    // The beginning byte by byte, the rest in steps: each look at a prefix costs its length.
    let step = bytes.len() / 64 + 1;
    for end in (0..bytes.len().min(64)).chain((64..bytes.len()).step_by(step)) {
        let part = detect::classify(bytes.get(..end).unwrap_or_default());
        assert!(part.is_none() || part == whole, "{part:?} after {end} bytes, {whole:?} at the end");
    }
}

/// A handshake message is read alike in one record and in many; the first byte says how long those are.
pub fn client_hello(bytes: &[u8]) {
    let Some((size, message)) = bytes.split_first() else { return };
    if message.is_empty() || message.len() > MAX_BYTES / 8 {
        return;
    }
    let whole = detect::classify(&records(message, message.len()));
    let parts = detect::classify(&records(message, usize::from(*size).max(1)));
    assert_eq!(parts, whole, "in records of {size} bytes, and in one");
    if let Some(Spoken::Tls(hello)) = whole
        && let Some(name) = hello.sni
    {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        assert!(name.bytes().all(plain) && name.len() <= 255, "the server name {name:?}");
    }
}

/// `message` in handshake records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let [.., high, low] = part.len().to_be_bytes();
        [&[detect::TLS_HANDSHAKE, 3, 1, high, low], part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}
