//! Buffers of this thread: taken while bytes are in flight, given back when dropped, and never more kept than
//! [`KEPT_SMALL`] and [`KEPT_LARGE`].

use std::ops::{Deref, DerefMut};

use crate::base::spare::{self, Spares};

/// The size to begin with: what one TLS record holds.
const SMALL_BYTES: usize = 16 * 1024;

/// The size for bulk: fewer system calls; more than this brings nothing measurable.
const LARGE_BYTES: usize = 64 * 1024;

/// Unused buffers kept for the next one who needs them; 512 KiB of each size. Few are needed at once: only what a slow
/// reader has not taken yet holds one between two turns of the event loop.
const KEPT_SMALL: usize = 32;
const KEPT_LARGE: usize = 8;

thread_local! {
    static SMALL: Spares<Box<[u8]>> = const { Spares::at_most(KEPT_SMALL) };
    static LARGE: Spares<Box<[u8]>> = const { Spares::at_most(KEPT_LARGE) };
}

/// How large a buffer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Size {
    /// 16 KiB.
    #[default]
    Small,
    /// 64 KiB.
    Large,
}

/// Some bytes of memory, with any content.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    size: Size,
}

impl Buffer {
    /// A buffer of this thread, or a new one.
    pub(super) fn take(size: Size) -> Self {
        let (free, bytes) = match size {
            Size::Small => (spare::take(&SMALL), SMALL_BYTES),
            Size::Large => (spare::take(&LARGE), LARGE_BYTES),
        };
        Self { bytes: free.unwrap_or_else(|| vec![0; bytes].into()), size }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        match self.size {
            Size::Small => spare::give(&SMALL, bytes),
            Size::Large => spare::give(&LARGE, bytes),
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_few_are_kept() {
        let first = Buffer::take(Size::Large);
        let at = first.as_ptr();
        assert_eq!(first.len(), LARGE_BYTES);
        drop(first);
        assert_eq!(Buffer::take(Size::Large).as_ptr(), at);
        drop((0..100).map(|_| Buffer::take(Size::Small)).collect::<Vec<_>>());
        assert_eq!(std::iter::from_fn(|| spare::take(&SMALL)).count(), KEPT_SMALL);
    }
}
