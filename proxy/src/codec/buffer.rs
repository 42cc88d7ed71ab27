//! Buffers that are held only while bytes are in flight, taken from and given back to a list of this thread.

use bytes::BytesMut;

use crate::base::spare::{self, Spares};

/// Capacity of a buffer: one TLS record.
pub(crate) const SIZE: usize = 16 * 1024;

/// Buffers kept for reuse on a thread; more are freed. 256 of them are 4 MiB, reached only by 128 concurrent exchanges.
const KEPT: usize = 256;

thread_local! {
    static FREE: Spares<Vec<u8>> = const { Spares::at_most(KEPT) };
}

/// Takes an empty buffer of [`SIZE`].
pub(crate) fn take() -> Vec<u8> {
    spare::take(&FREE).unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Gives a buffer back. One that has grown or was never allocated is freed instead.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() == SIZE {
        buffer.clear();
        spare::give(&FREE, buffer);
    }
}

/// Buffers kept whose bytes may still be read by others.
const KEPT_SHARED: usize = 64;

thread_local! {
    static FREE_SHARED: Spares<BytesMut> = const { Spares::at_most(KEPT_SHARED) };
}

/// Takes an empty buffer of [`SIZE`] whose parts can be handed on without a copy.
pub(crate) fn take_shared() -> BytesMut {
    spare::take(&FREE_SHARED)
        // Most likely nobody reads its parts any more; else they keep it until they have been read.
        .and_then(|mut buffer| {
            buffer.clear();
            buffer.try_reclaim(SIZE).then_some(buffer)
        })
        .unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Gives a buffer back whose own bytes were used.
pub(crate) fn give_shared(buffer: BytesMut) {
    if buffer.capacity() > 0 {
        spare::give(&FREE_SHARED, buffer);
    }
}

/// Bytes received and not yet used. Holds memory only while there are some.
#[derive(Debug, Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    at: usize,
}

impl Received {
    /// What is there.
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Whether nothing is there.
    pub(crate) const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Forgets the first `n` bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        self.at = self.at.saturating_add(n).min(self.bytes.len());
        if self.is_empty() {
            self.release();
        }
    }

    /// Lets `read` append to the buffer, with room for at least a few KiB, and gives the memory back if it did not.
    pub(crate) fn fill<T>(&mut self, read: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.bytes.capacity() == 0 {
            self.bytes = take();
        } else if self.at > 0 && self.bytes.capacity().saturating_sub(self.bytes.len()) < SIZE / 4 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        if self.bytes.capacity().saturating_sub(self.bytes.len()) < SIZE / 8 {
            self.bytes.reserve(SIZE);
        }
        let result = read(&mut self.bytes);
        if self.is_empty() {
            self.release();
        }
        result
    }

    fn release(&mut self) {
        give(std::mem::take(&mut self.bytes));
        self.at = 0;
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_buffer_holds_no_memory() {
        let mut received = Received::default();
        received.fill(|b| b.extend_from_slice(b"hello"));
        assert_eq!(received.unread(), b"hello");
        received.consume(2);
        assert_eq!(received.unread(), b"llo");
        received.consume(3);
        assert_eq!(received.bytes.capacity(), 0);
        received.fill(|_| ());
        assert_eq!(received.bytes.capacity(), 0);
    }
}
