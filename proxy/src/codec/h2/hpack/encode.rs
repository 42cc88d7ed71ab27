//! Blocks as sent. A field that is sent again is remembered at its second time, so that what is different each time
//! never drives out what is not.

use std::collections::VecDeque;

use super::{OVERHEAD, TABLE, names};

/// Places where the fields of the table are found by their hash.
const PLACES: usize = 64;
/// A longer field is sent whole each time.
const LONGEST: usize = 1024;

/// The sending end of a connection's compression. Holds no memory before the first field that is worth it.
#[derive(Debug)]
pub(crate) struct Encoder {
    memory: Option<Box<Memory>>,
    max: usize,
    /// Sizes that the peer must be told of: the smallest in between, and the last.
    resized: Option<(usize, usize)>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { memory: None, max: TABLE, resized: None }
    }
}

/// What the peer remembers.
#[derive(Debug)]
struct Memory {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    size: usize,
    /// Entries that were ever inserted: the number of the newest.
    count: usize,
    /// By hash: the number of the entry that has it.
    places: [usize; PLACES],
    /// By hash: what was sent once.
    seen: [u16; PLACES],
}

#[derive(Debug)]
struct Entry {
    at: usize,
    name: usize,
    value: usize,
}

impl Entry {
    const fn size(&self) -> usize {
        self.name + self.value + OVERHEAD
    }
}

impl Encoder {
    /// The peer says how much it will remember.
    pub(crate) fn resize(&mut self, peer: usize) {
        let max = peer.min(TABLE);
        if max != self.max {
            let least = self.resized.map_or(max, |(least, _)| least.min(max));
            self.resized = Some((least, max));
            self.max = max;
            if let Some(memory) = &mut self.memory {
                memory.shrink(least);
            }
        }
    }

    /// To be called before the first field of a block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, last)) = self.resized.take() {
            if least < last {
                integer(0x20, 5, least, out);
            }
            integer(0x20, 5, last, out);
        }
    }

    /// Writes `:status`.
    pub(crate) fn status(status: u16, out: &mut Vec<u8>) {
        let known = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let digit = |n: u16| b'0' + (n % 10) as u8;
                out.extend_from_slice(&[8, 3, digit(status / 100), digit(status / 10), digit(status)]);
                return;
            }
        };
        out.push(0x80 | known);
    }

    /// Writes `:method` and `:scheme`, which is always `http`: what is underneath differs from hop to hop.
    pub(crate) fn method(&mut self, method: &[u8], out: &mut Vec<u8>) {
        match method {
            b"GET" => out.push(0x82),
            b"POST" => out.push(0x83),
            _ => self.field(b":method", method, out),
        }
        out.push(0x86);
    }

    /// Writes `:path`.
    pub(crate) fn path(&mut self, path: &[u8], out: &mut Vec<u8>) {
        if path == b"/" { out.push(0x84) } else { self.field(b":path", path, out) }
    }

    /// Writes a field that nobody may remember, as its sender has asked (RFC 7541 section 6.2.3).
    pub(crate) fn secret(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let known = names::static_index(name).map_or(0, usize::from);
        literal(0x10, 4, known, name, value, out);
    }

    /// Writes a field. `name` is in lower case.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if is_secret(name) {
            return Self::secret(name, value, out);
        }
        let hash = hash(name, value);
        let place = hash as usize % PLACES;
        if let Some(index) = self.memory.as_ref().and_then(|memory| memory.find(place, name, value)) {
            return integer(0x80, 7, index, out);
        }
        let known = names::static_index(name).map_or(0, usize::from);
        let length = name.len() + value.len();
        if length > LONGEST || length + OVERHEAD > self.max {
            return literal(0, 4, known, name, value, out);
        }
        let memory = self.memory.get_or_insert_with(Memory::new);
        let mark = (hash >> 16) as u16;
        let (Some(seen), Some(at)) = (memory.seen.get_mut(place), memory.places.get_mut(place)) else { return };
        if *seen != mark {
            *seen = mark;
            return literal(0, 4, known, name, value, out);
        }
        *at = memory.count + 1;
        memory.insert(name, value, self.max);
        literal(0x40, 6, known, name, value, out);
    }
}

impl Memory {
    fn new() -> Box<Self> {
        let (places, seen) = ([0; PLACES], [0; PLACES]);
        Box::new(Self { entries: VecDeque::new(), bytes: Vec::new(), size: 0, count: 0, places, seen })
    }

    /// The index of a field that is remembered.
    fn find(&self, place: usize, name: &[u8], value: &[u8]) -> Option<usize> {
        let back = self.count.checked_sub(*self.places.get(place)?)?;
        let entry = self.entries.get(self.entries.len().checked_sub(back + 1)?)?;
        let held = self.bytes.get(entry.at..entry.at + entry.name + entry.value)?;
        let same = held.get(..entry.name) == Some(name) && held.get(entry.name..) == Some(value);
        same.then_some(names::STATIC.len() + 1 + back)
    }

    fn insert(&mut self, name: &[u8], value: &[u8], max: usize) {
        let entry = Entry { at: self.bytes.len(), name: name.len(), value: value.len() };
        self.shrink(max - entry.size());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += entry.size();
        self.count += 1;
        self.entries.push_back(entry);
        let dead = self.entries.front().map_or(0, |first| first.at);
        if dead > TABLE {
            self.bytes.drain(..dead);
            for entry in &mut self.entries {
                entry.at -= dead;
            }
        }
    }

    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.size -= oldest.size();
        }
    }
}

/// Whether a value is one that nobody may find out by guessing (RFC 7541 section 7.1.3).
pub(crate) fn is_secret(name: &[u8]) -> bool {
    matches!(name, b"authorization" | b"cookie" | b"proxy-authorization" | b"set-cookie")
}

fn literal(first: u8, bits: u32, index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    integer(first, bits, index, out);
    if index == 0 {
        integer(0, 7, name.len(), out);
        out.extend_from_slice(name);
    }
    integer(0, 7, value.len(), out);
    out.extend_from_slice(value);
}

/// An integer with a prefix of `bits` (RFC 7541 section 5.1).
pub(super) fn integer(first: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let most = (1usize << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A hash that is good enough to find what is compared afterwards.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mut state = (name.len() as u64) << 8 ^ value.len() as u64;
    for part in [name, value] {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            state = (state.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(K);
        }
        for byte in rest {
            state = (state.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(K);
        }
    }
    // Never 0, which is what was seen before anything was.
    (state >> 32) as u32 | 0x1_0000
}

#[cfg(test)]
mod tests {
    use super::super::decode::Decoder;
    use super::super::decode::tests::read;
    use super::*;

    fn block(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            encoder.field(name.as_bytes(), value.as_bytes(), &mut out);
        }
        out
    }

    #[test]
    fn repeated_fields_cost_a_byte() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let fields = [("user-agent", "x/1"), ("x-a", "1"), (":path", "/a")];
        let lengths: Vec<usize> = (0..4)
            .map(|_| {
                let out = block(&mut encoder, &fields);
                let got = read(&mut decoder, &out).unwrap();
                assert!(got.iter().zip(fields).all(|(got, sent)| (got.0.as_str(), got.1.as_str()) == sent));
                out.len()
            })
            .collect();
        assert_eq!(lengths[2..], [3, 3]);
    }

    #[test]
    fn secrets_are_never_remembered() {
        let mut encoder = Encoder::default();
        for _ in 0..3 {
            assert_eq!(block(&mut encoder, &[("cookie", "a")])[0] & 0xf0, 0x10);
        }
        assert!(encoder.memory.is_none());
    }

    #[test]
    fn the_peers_size_is_kept_to() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for _ in 0..3 {
            read(&mut decoder, &block(&mut encoder, &[("x", "1"), ("y", "2")])).unwrap();
        }
        encoder.resize(31);
        let out = block(&mut encoder, &[("", ""), ("", "")]);
        assert_eq!(read(&mut decoder, &out).unwrap().len(), 2);
        encoder.resize(0);
        encoder.resize(40);
        let out = block(&mut encoder, &[("x", "1")]);
        assert_eq!(out[..3], [0x20, 0x3f, 9]);
        assert_eq!(read(&mut decoder, &out).unwrap().len(), 1);
        for round in 0..9 {
            let out = block(&mut encoder, &[("x", "1"), ("y", "2"), ("long", "longer than the table is")]);
            assert_eq!(read(&mut decoder, &out).unwrap()[1].1, "2", "{round}");
        }
    }

    #[test]
    fn statuses() {
        for status in [100, 200, 204, 206, 304, 400, 404, 431, 500, 503, 999] {
            let mut out = Vec::new();
            Encoder::status(status, &mut out);
            let got = read(&mut Decoder::default(), &out).unwrap();
            assert_eq!(got, [(":status".into(), status.to_string())]);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(
            blocks in proptest::collection::vec(
                proptest::collection::vec(("[a-c]{1,3}", "[x-z]{0,200}"), 0..20), 0..20),
            sizes in proptest::collection::vec(0usize..5000, 20),
        ) {
            let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
            for (fields, size) in blocks.iter().zip(sizes) {
                if size < 2000 {
                    encoder.resize(size);
                }
                let given: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let got = read(&mut decoder, &block(&mut encoder, &given)).unwrap();
                proptest::prop_assert_eq!(&got, fields);
            }
        }
    }
}
