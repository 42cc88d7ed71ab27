//! A bounded queue of records from one worker to the writer thread, without locks.
//!
//! Words of a fixed array, written by one side and read by the other; each record is its length in bytes and then its
//! bytes. What does not fit is refused whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a word.
const WORD: usize = 8;

#[derive(Debug)]
struct Ring {
    words: Box<[AtomicU64]>,
    /// Words written so far, by the producer.
    written: AtomicU64,
    /// Words read so far, by the consumer.
    read: AtomicU64,
}

impl Ring {
    fn word(&self, position: u64) -> Option<&AtomicU64> {
        // The length is a power of two, so the mask keeps the position inside.
        let mask = self.words.len().wrapping_sub(1);
        self.words.get(usize::try_from(position).ok()? & mask)
    }
}

/// A ring of `words` 8-byte words, rounded up to a power of two.
pub(super) fn ring(words: usize) -> (Sender, Receiver) {
    let words = (0..words.next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
    let ring = Arc::new(Ring { words, written: AtomicU64::new(0), read: AtomicU64::new(0) });
    (Sender { ring: ring.clone() }, Receiver { ring })
}

/// The end that writes.
#[derive(Debug)]
pub(super) struct Sender {
    ring: Arc<Ring>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is in the ring.
    Queued,
    /// It is in the ring, which is half full since: the reader should hurry.
    HalfFull,
    /// It did not fit.
    Refused,
}

impl Sender {
    /// Puts a record into the ring.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "one at a time: the other side counts on it")]
    pub(super) fn send(&mut self, record: &[u8]) -> Sent {
        let ring = &*self.ring;
        let start = ring.written.load(Ordering::Relaxed);
        // Acquire: what the reader has read before it said so may be overwritten.
        let used = start.wrapping_sub(ring.read.load(Ordering::Acquire));
        let size = 1 + record.len().div_ceil(WORD) as u64;
        let capacity = ring.words.len() as u64;
        if used + size > capacity {
            return Sent::Refused;
        }
        let mut position = start;
        let mut put = |value: u64| {
            if let Some(word) = ring.word(position) {
                word.store(value, Ordering::Relaxed);
            }
            position = position.wrapping_add(1);
        };
        put(record.len() as u64);
        for chunk in record.chunks(WORD) {
            let mut bytes = [0; WORD];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            put(u64::from_le_bytes(bytes));
        }
        // Release: the reader sees the words once it sees the count.
        ring.written.store(position, Ordering::Release);
        if used < capacity / 2 && used + size >= capacity / 2 { Sent::HalfFull } else { Sent::Queued }
    }
}

/// The end that reads.
#[derive(Debug)]
pub(super) struct Receiver {
    ring: Arc<Ring>,
}

impl Receiver {
    /// Appends every record there is to `out`.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "one at a time: the other side counts on it")]
    pub(super) fn receive(&mut self, out: &mut Vec<u8>) {
        let ring = &*self.ring;
        let end = ring.written.load(Ordering::Acquire);
        let mut position = ring.read.load(Ordering::Relaxed);
        let take = |position: &mut u64| {
            let value = ring.word(*position).map_or(0, |word| word.load(Ordering::Relaxed));
            *position = position.wrapping_add(1);
            value
        };
        while position != end {
            let mut left = usize::try_from(take(&mut position)).unwrap_or(0);
            while left > 0 && position != end {
                let bytes = take(&mut position).to_le_bytes();
                let part = left.min(WORD);
                out.extend(bytes.iter().take(part));
                left -= part;
            }
        }
        ring.read.store(position, Ordering::Release);
    }

    /// Whether the other end is gone, so that nothing more will come.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.ring) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_whole_and_in_order() {
        let (mut tx, mut rx) = ring(16);
        let mut out = Vec::new();
        for round in 0..100_u32 {
            let record = format!("record {round}, of some length\n");
            assert_ne!(tx.send(record.as_bytes()), Sent::Refused);
            rx.receive(&mut out);
            assert_eq!(out, record.as_bytes());
            out.clear();
        }
        assert_eq!(tx.send(b""), Sent::Queued);
        rx.receive(&mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let (mut tx, mut rx) = ring(8);
        assert_eq!(tx.send(b"0123456789"), Sent::Queued);
        assert_eq!(tx.send(b"abcdefgh"), Sent::HalfFull);
        assert_eq!(tx.send(b"0123456789abcdef!"), Sent::Refused);
        assert_eq!(tx.send(b"0123456789abcdef"), Sent::Queued);
        assert_eq!(tx.send(b""), Sent::Refused);
        let mut out = Vec::new();
        rx.receive(&mut out);
        assert_eq!(out, b"0123456789abcdefgh0123456789abcdef");
        assert_eq!(tx.send(b"again"), Sent::Queued);
        assert!(!rx.is_abandoned());
        drop(tx);
        assert!(rx.is_abandoned());
    }

    #[test]
    fn two_threads_agree() {
        let (mut tx, mut rx) = ring(64);
        let sender = std::thread::spawn(move || {
            (0..20_000_u32).filter(|n| tx.send(&n.to_le_bytes()) != Sent::Refused).collect::<Vec<_>>()
        });
        let mut out = Vec::new();
        while !rx.is_abandoned() {
            rx.receive(&mut out);
        }
        rx.receive(&mut out);
        let sent = sender.join().unwrap();
        let received: Vec<_> = out.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(received, sent);
    }
}
