//! Things of a thread that are used again instead of made anew: buffers, lists, pipes.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Spare things of one kind. Declared as `thread_local!`, taken with [`take`], given back with [`give`].
#[derive(Debug)]
pub(crate) struct Spares<T> {
    list: RefCell<Vec<T>>,
    most: usize,
}

impl<T> Spares<T> {
    /// None yet, and never more than `most`.
    pub(crate) const fn at_most(most: usize) -> Self {
        Self { list: RefCell::new(Vec::new()), most }
    }
}

/// A spare one.
pub(crate) fn take<T>(spares: &'static LocalKey<Spares<T>>) -> Option<T> {
    spares.with(|spares| spares.list.borrow_mut().pop())
}

/// Keeps `one` for the next who needs one, unless there are enough.
pub(crate) fn give<T>(spares: &'static LocalKey<Spares<T>>, one: T) {
    // While the thread ends there is no list any more; it is freed then.
    let _ = spares.try_with(|spares| {
        let mut list = spares.list.borrow_mut();
        if list.len() < spares.most {
            list.push(one);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static NUMBERS: Spares<u8> = const { Spares::at_most(2) };
    }

    #[test]
    fn what_was_given_is_taken() {
        assert_eq!(take(&NUMBERS), None);
        for number in 1..=3 {
            give(&NUMBERS, number);
        }
        let taken: Vec<u8> = std::iter::from_fn(|| take(&NUMBERS)).collect();
        assert_eq!(taken, [2, 1]);
    }
}
