//! Blocks as received (RFC 7541 section 6). What a field costs is bounded by whoever takes it: the table holds at most
//! 4 KiB, and a block names its entries without copying them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::collections::VecDeque;

use super::names::{self, Kind};
use super::{OVERHEAD, TABLE, huffman};
use crate::codec::buffer;

/// A field of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded<'f> {
    pub(crate) name: &'f [u8],
    pub(crate) value: &'f [u8],
    pub(crate) kind: Kind,
    /// Its value is one that a field may have.
    pub(crate) good: bool,
    /// Nobody on its way may remember it (section 6.2.3).
    pub(crate) secret: bool,
}

#[cfg(any(test, feature = "fuzz"))]
impl<'f> Decoded<'f> {
    /// A field as a block spells it out.
    pub(crate) fn of(name: &'f [u8], value: &'f [u8]) -> Self {
        Self { name, value, kind: names::kind(name), good: names::is_value(value), secret: false }
    }
}

/// Takes the fields of a block, one after the other.
pub(crate) trait Sink {
    /// One field.
    fn field(&mut self, field: Decoded<'_>);
}

/// The block cannot be read, and nor can any after it: COMPRESSION_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad;

impl From<huffman::Bad> for Bad {
    fn from(huffman::Bad: huffman::Bad) -> Self {
        Self
    }
}

/// The receiving end of a connection's compression. Empty, it holds no memory.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: Table { max: TABLE, ..Table::default() } }
    }
}

impl Decoder {
    /// Reads a whole block.
    pub(crate) fn decode(&mut self, block: &[u8], sink: &mut impl Sink) -> Result<(), Bad> {
        let mut scratch = Vec::new();
        let read = self.read(block, &mut scratch, sink);
        buffer::give(scratch);
        read
    }

    fn read(&mut self, mut block: &[u8], scratch: &mut Vec<u8>, sink: &mut impl Sink) -> Result<(), Bad> {
        let mut begun = false;
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let (index, rest) = integer(block, 7)?;
                block = rest;
                self.indexed(index, sink)?;
            } else if first & 0xe0 == 0x20 {
                // Only before the first field (section 4.2).
                let (size, rest) = integer(block, 5)?;
                if begun || size > TABLE {
                    return Err(Bad);
                }
                block = rest;
                self.table.resize(size);
                continue;
            } else {
                let keep = first & 0x40 != 0;
                let (index, rest) = integer(block, if keep { 6 } else { 4 })?;
                let how = if keep { Literal::Kept } else { Literal::Passing { secret: first & 0x10 != 0 } };
                block = self.literal(index, how, rest, scratch, sink)?;
            }
            begun = true;
        }
        Ok(())
    }

    fn indexed(&self, index: usize, sink: &mut impl Sink) -> Result<(), Bad> {
        match names::STATIC.get(index.wrapping_sub(1)) {
            Some((name, value)) => {
                let kind = names::static_kind(index);
                sink.field(Decoded { name, value, kind, good: true, secret: false });
            }
            None => {
                let entry = self.table.get(index).ok_or(Bad)?;
                let (name, value) = (self.table.name(entry), self.table.value(entry));
                sink.field(Decoded { name, value, kind: entry.kind, good: entry.good, secret: false });
            }
        }
        Ok(())
    }

    fn literal<'b>(
        &mut self,
        index: usize,
        how: Literal,
        block: &'b [u8],
        scratch: &mut Vec<u8>,
        sink: &mut impl Sink,
    ) -> Result<&'b [u8], Bad> {
        let (keep, secret) = (how == Literal::Kept, how == Literal::Passing { secret: true });
        scratch.clear();
        if index == 0 {
            let (name, rest) = string(block, scratch)?;
            let split = scratch.len();
            let (value, rest) = string(rest, scratch)?;
            let name = name.unwrap_or_else(|| scratch.get(..split).unwrap_or_default());
            let value = value.unwrap_or_else(|| scratch.get(split..).unwrap_or_default());
            let (kind, good) = (names::kind(name), names::is_value(value));
            sink.field(Decoded { name, value, kind, good, secret });
            if keep {
                self.table.insert(Name::New(name), value, kind, good);
            }
            return Ok(rest);
        }
        let (value, rest) = string(block, scratch)?;
        let value = value.unwrap_or(scratch);
        let good = names::is_value(value);
        if let Some((name, _)) = names::STATIC.get(index.wrapping_sub(1)) {
            let kind = names::static_kind(index);
            sink.field(Decoded { name, value, kind, good, secret });
            if keep {
                self.table.insert(Name::New(name), value, kind, good);
            }
        } else {
            let entry = self.table.get(index).ok_or(Bad)?;
            sink.field(Decoded { name: self.table.name(entry), value, kind: entry.kind, good, secret });
            if keep {
                let (at, length, kind) = (entry.at, entry.name, entry.kind);
                self.table.insert(Name::Kept(at, length), value, kind, good);
            }
        }
        Ok(rest)
    }
}

/// An integer with a prefix of `bits` (section 5.1), and what follows it.
fn integer(block: &[u8], bits: u32) -> Result<(usize, &[u8]), Bad> {
    let (first, mut rest) = block.split_first().ok_or(Bad)?;
    let most = 0xffu8 >> 8u32.wrapping_sub(bits);
    let mut value = usize::from(first & most);
    if value < usize::from(most) {
        return Ok((value, rest));
    }
    // Four more bytes are 28 bits: no length or index of ours is larger.
    for shift in [0u32, 7, 14, 21] {
        let (byte, after) = rest.split_first().ok_or(Bad)?;
        rest = after;
        value = value.wrapping_add(usize::from(byte & 0x7f).wrapping_shl(shift));
        if byte & 0x80 == 0 {
            return Ok((value, rest));
        }
    }
    Err(Bad)
}

/// A string (section 5.2): as it stands in the block, or none when it was appended to `scratch`.
fn string<'b>(block: &'b [u8], scratch: &mut Vec<u8>) -> Result<(Option<&'b [u8]>, &'b [u8]), Bad> {
    let coded = block.first().ok_or(Bad)? & 0x80 != 0;
    let (length, rest) = integer(block, 7)?;
    let (text, rest) = rest.split_at_checked(length).ok_or(Bad)?;
    if !coded {
        return Ok((Some(text), rest));
    }
    if scratch.capacity() == 0 {
        *scratch = buffer::take();
    }
    huffman::decode(text, scratch)?;
    Ok((None, rest))
}

/// What becomes of a field that was spelt out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    /// It enters the table.
    Kept,
    /// It does not.
    Passing { secret: bool },
}

/// Where the name of a new entry is.
enum Name<'n> {
    New(&'n [u8]),
    /// In the table.
    Kept(usize, usize),
}

/// The fields that the peer wants to be remembered (section 2.3.2), their bytes one after the other.
#[derive(Debug, Default)]
struct Table {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    size: usize,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: usize,
    name: usize,
    value: usize,
    kind: Kind,
    good: bool,
}

impl Entry {
    const fn size(&self) -> usize {
        self.name.saturating_add(self.value).saturating_add(OVERHEAD)
    }
}

impl Table {
    /// The entry of an index beyond the static table.
    fn get(&self, index: usize) -> Option<&Entry> {
        let back = index.checked_sub(names::STATIC.len())?;
        self.entries.get(self.entries.len().checked_sub(back)?)
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.at..).and_then(|rest| rest.get(..entry.name)).unwrap_or_default()
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        let at = entry.at.saturating_add(entry.name);
        self.bytes.get(at..).and_then(|rest| rest.get(..entry.value)).unwrap_or_default()
    }

    fn insert(&mut self, name: Name<'_>, value: &[u8], kind: Kind, good: bool) {
        let length = match name {
            Name::New(name) => name.len(),
            Name::Kept(_, length) => length,
        };
        let mut entry = Entry { at: 0, name: length, value: value.len(), kind, good };
        if entry.size() > self.max {
            // Larger than the table: it empties it (section 4.4).
            return self.clear();
        }
        entry.at = self.bytes.len();
        match name {
            Name::New(name) => self.bytes.extend_from_slice(name),
            Name::Kept(at, length) => self.bytes.extend_from_within(at..at.saturating_add(length)),
        }
        self.bytes.extend_from_slice(value);
        self.shrink(self.max.saturating_sub(entry.size()));
        self.size = self.size.saturating_add(entry.size());
        self.entries.push_back(entry);
        let dead = self.entries.front().map_or(0, |first| first.at);
        if dead > TABLE {
            self.bytes.drain(..dead);
            for entry in &mut self.entries {
                entry.at = entry.at.saturating_sub(dead);
            }
        }
    }

    fn resize(&mut self, max: usize) {
        self.max = max;
        if max == 0 { self.clear() } else { self.shrink(max) }
    }

    fn clear(&mut self) {
        (self.entries, self.bytes, self.size) = (VecDeque::new(), Vec::new(), 0);
    }

    /// Forgets the oldest until the others fit.
    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.size = self.size.saturating_sub(oldest.size());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

    impl Sink for Fields {
        fn field(&mut self, Decoded { name, value, kind, good, .. }: Decoded<'_>) {
            assert_eq!((kind, good), (names::kind(name), names::is_value(value)), "what is remembered of a field");
            self.0.push((String::from_utf8_lossy(name).into(), String::from_utf8_lossy(value).into()));
        }
    }

    pub(crate) fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Bad> {
        let mut fields = Fields::default();
        decoder.decode(block, &mut fields).map(|()| fields.0)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn the_requests_of_the_rfc() {
        // Appendices C.3 and C.4: the same three requests, plain and coded.
        let plain = [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ];
        let coded = [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::default();
            let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
            assert_eq!(read(&mut decoder, &hex(blocks[0])).unwrap(), pairs(&first));
            let second = [&first[..], &[("cache-control", "no-cache")]].concat();
            assert_eq!(read(&mut decoder, &hex(blocks[1])).unwrap(), pairs(&second));
            let third = [
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/index.html"),
                (":authority", "www.example.com"),
                ("custom-key", "custom-value"),
            ];
            assert_eq!(read(&mut decoder, &hex(blocks[2])).unwrap(), pairs(&third));
            assert_eq!(decoder.table.size, 164);
        }
    }

    #[test]
    fn the_replies_of_the_rfc_evict() {
        // Appendix C.6, with a table of 256 bytes.
        let mut decoder = Decoder::default();
        decoder.table.resize(256);
        let blocks = [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ];
        let sizes = [222, 222, 215];
        let mut last = Vec::new();
        for (block, size) in blocks.iter().zip(sizes) {
            last = read(&mut decoder, &hex(block)).unwrap();
            assert_eq!(decoder.table.size, size);
        }
        assert_eq!(last[5].1, "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    }

    #[test]
    fn what_cannot_be_read() {
        let bad: [&[u8]; 9] = [
            &[0x80],
            &[0xbe],
            &[0xff],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x40],
            &[0x40, 0x05, b'a'],
            &[0x00, 0x01, b'a', 0x81, 0xff],
            &[0x82, 0x20],
            &[0x3f, 0xe2, 0x1f],
        ];
        for block in bad {
            assert_eq!(read(&mut Decoder::default(), block), Err(Bad), "{block:x?}");
        }
        assert_eq!(read(&mut Decoder::default(), &[0x20, 0x3f, 0xe1, 0x1f, 0x82]).unwrap().len(), 1);
    }

    #[test]
    fn entries_move_when_others_have_gone() {
        let mut decoder = Decoder::default();
        for round in 0..500u32 {
            let name = format!("n{round}");
            let value = "v".repeat(round as usize % 90);
            let length = |text: &str| u8::try_from(text.len()).unwrap();
            let mut block = vec![0x40, length(&name)];
            block.extend(name.as_bytes());
            block.push(length(&value));
            block.extend(value.as_bytes());
            read(&mut decoder, &block).unwrap();
            assert_eq!(read(&mut decoder, &[0xbe]).unwrap(), [(name, value)]);
            assert!(decoder.table.size <= TABLE && decoder.table.bytes.len() <= 3 * TABLE);
        }
        // A name of the table for a new entry that drives its owner out.
        assert_eq!(read(&mut decoder, &[0x7e, 0]).unwrap(), pairs(&[("n499", "")]));
    }

    /// A literal that enters the table, spelt out.
    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut block = vec![0x40];
        for part in [name, value] {
            super::super::encode::integer(0, 7, part.len(), &mut block);
            block.extend_from_slice(part.as_bytes());
        }
        block
    }

    #[test]
    fn an_entry_may_fill_the_table() {
        for before in [0, 7] {
            for size in [TABLE - 1, TABLE, TABLE + 1] {
                let mut decoder = Decoder::default();
                for n in 0..before {
                    read(&mut decoder, &literal(&format!("n{n}"), &"v".repeat(1000))).unwrap();
                }
                let value = "v".repeat(size - OVERHEAD - 1);
                read(&mut decoder, &literal("x", &value)).unwrap();
                if size > TABLE {
                    assert_eq!(read(&mut decoder, &[0xbe]), Err(Bad), "it emptied the table");
                    continue;
                }
                assert_eq!(read(&mut decoder, &[0xbe]).unwrap(), pairs(&[("x", &value)]), "{before} {size}");
                // By its name, which drives it out.
                assert_eq!(read(&mut decoder, &[0x7e, 1, b'y', 0xbe]).unwrap(), pairs(&[("x", "y"), ("x", "y")]));
            }
        }
        // In a table that has room for nothing else.
        let mut decoder = Decoder::default();
        assert_eq!(read(&mut decoder, &[0x3f, 2, 0x40, 1, b'x', 0, 0xbe]).unwrap(), pairs(&[("x", ""), ("x", "")]));
    }

    /// Every entry is what was put into it, in a table of `size`; fields by the lengths of their names and values.
    fn entries_stay(size: usize, fields: Vec<(usize, usize)>) {
        let mut decoder = Decoder::default();
        decoder.table.resize(size);
        let mut held = VecDeque::new();
        let size_of_entry =
            |(name, value): &(String, String)| [name.len(), value.len(), OVERHEAD].iter().sum::<usize>();
        let index = |back: usize| u8::try_from(back).unwrap().saturating_add(0xbe);
        for ((name, value), letter) in fields.into_iter().zip(('a'..='z').cycle()) {
            let (name, value) = (letter.to_string().repeat(name), letter.to_string().repeat(value));
            read(&mut decoder, &literal(&name, &value)).unwrap();
            held.push_front((name, value));
            while held.iter().map(size_of_entry).sum::<usize>() > size {
                held.pop_back();
            }
            for (back, field) in held.iter().enumerate() {
                assert_eq!(&read(&mut decoder, &[index(back)]).unwrap()[0], field);
            }
            assert!(read(&mut decoder, &[index(held.len())]).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_block_is_read_or_refused(blocks: Vec<Vec<u8>>) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = read(&mut decoder, &block);
                assert!(decoder.table.size <= TABLE);
            }
        }

        #[test]
        fn entries_stay_what_they_are(
            size in 0usize..200,
            fields in proptest::collection::vec((1usize..90, 0usize..90), 0..40),
        ) {
            entries_stay(size, fields);
        }
    }
}
