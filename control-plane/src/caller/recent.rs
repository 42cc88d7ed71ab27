//! What the cluster answered lately, by hash of the token, so that it is asked once a minute and not once a call. Bounded
//! in time and number; never holds a token. Good and bad tokens have a cache each: bad ones can be made without end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Answers at once. A full cache forgets the answer that ends soonest.
const MOST: usize = 16_384;

/// An answer that a token is good is believed this long, and never beyond the token's end.
pub(super) const GOOD: Duration = Duration::from_secs(60);

/// An answer that a token is bad is believed this long.
pub(super) const BAD: Duration = Duration::from_secs(10);

/// SHA-256 of a token.
pub(super) type Hash = [u8; 32];

/// Answers by token.
#[derive(Debug)]
pub(super) struct Recent<V> {
    answers: HashMap<Hash, (V, Instant)>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { answers: HashMap::new() }
    }
}

impl<V: Clone> Recent<V> {
    /// The answer, while it may be believed.
    pub(super) fn get(&self, token: &Hash, now: Instant) -> Option<V> {
        self.answers.get(token).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Believes `answer` for `time`.
    pub(super) fn put(&mut self, token: Hash, answer: V, time: Duration, now: Instant) {
        if self.answers.len() >= MOST {
            self.answers.retain(|_, (_, until)| now < *until);
        }
        if self.answers.len() >= MOST
            && let Some(soonest) = self.answers.iter().min_by_key(|(_, (_, until))| *until).map(|(token, _)| *token)
        {
            self.answers.remove(&soonest);
        }
        self.answers.insert(token, (answer, now + time));
    }
}

/// The hash of a token.
pub(super) fn hash(token: &str) -> Hash {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    // SHA-256 has 32 bytes.
    digest.as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_and_are_bounded() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        recent.put(hash("a"), 1, GOOD, start);
        assert_eq!(recent.get(&hash("a"), start), Some(1));
        assert_eq!(recent.get(&hash("b"), start), None);
        assert_eq!(recent.get(&hash("a"), start + GOOD), None);
        for number in 0..MOST + 10 {
            recent.put(hash(&number.to_string()), 2, BAD, start);
            assert!(recent.answers.len() <= MOST);
        }
        assert_eq!(recent.get(&hash(&(MOST + 9).to_string()), start), Some(2));
    }
}
