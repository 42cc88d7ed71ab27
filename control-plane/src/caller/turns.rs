//! Whose turn it is to ask the cluster: a bounded number of questions at once, and sources take turns, so that one
//! that asks without end delays no other by more than one question.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Questions at once; more wait.
const AT_ONCE: usize = 32;

/// Callers of one source that wait at most; further ones are refused.
const WAITING: usize = 128;

/// Sources that are told apart; further ones count as one.
const SOURCES: usize = 4_096;

/// Questions about tokens of unknown signature: so many of one source at once, then one for each [`PAUSE`]. The pods of a
/// node may share its address.
const UNSIGNED: u32 = 128;

/// See [`UNSIGNED`].
const PAUSE: Duration = Duration::from_millis(100);

/// The turns of one process. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: usize,
    sources: HashMap<IpAddr, Source>,
    /// Sources with somebody who waits, in the order they are served.
    order: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Source {
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// Questions about unsigned tokens that may be asked now, as of `counted`.
    unsigned: u32,
    counted: Instant,
}

/// A turn; dropping it gives it to the next source.
#[derive(Debug)]
pub(super) struct Turn(Turns);

/// The source has too many callers that wait, or asks about too many unsigned tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

impl Turns {
    /// Waits for a turn of `source`. Cancel safe: a dropped wait keeps no turn. `signed`: the cluster signed the token
    /// that is asked about.
    ///
    /// # Errors
    /// [`Crowded`], at once.
    pub(super) async fn turn(&self, source: IpAddr, signed: bool) -> Result<Turn, Crowded> {
        let waiting = {
            let mut state = self.lock();
            let source = state.source(group(source), Instant::now());
            if !signed {
                let place = state.sources.get_mut(&source).ok_or(Crowded)?;
                place.unsigned = place.unsigned.checked_sub(1).ok_or(Crowded)?;
            }
            if state.running < AT_ONCE {
                state.running = state.running.saturating_add(1);
                return Ok(Turn(self.clone()));
            }
            let (turn, waiting) = oneshot::channel();
            let place = state.sources.get_mut(&source).ok_or(Crowded)?;
            place.waiting.retain(|waiting| !waiting.is_closed());
            if place.waiting.len() >= WAITING {
                return Err(Crowded);
            }
            place.waiting.push_back(turn);
            if !state.order.contains(&source) {
                state.order.push_back(source);
            }
            waiting
        };
        waiting.await.map_err(|_| Crowded)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The source under which callers of `address` are counted, as of `now`.
    fn source(&mut self, address: IpAddr, now: Instant) -> IpAddr {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&address) {
            self.sources.retain(|_, source| {
                source.refill(now);
                !source.waiting.is_empty() || source.unsigned < UNSIGNED
            });
        }
        let full = self.sources.len() >= SOURCES && !self.sources.contains_key(&address);
        let address = if full { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { address };
        let fresh = Source { waiting: VecDeque::new(), unsigned: UNSIGNED, counted: now };
        self.sources.entry(address).or_insert(fresh).refill(now);
        address
    }

    /// Who is next: one caller of the source that was served longest ago.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(address) = self.order.pop_front() {
            let Some(source) = self.sources.get_mut(&address) else { continue };
            let next = source.waiting.pop_front();
            if !source.waiting.is_empty() {
                self.order.push_back(address);
            }
            if next.as_ref().is_some_and(|next| !next.is_closed()) {
                return next;
            }
        }
        None
    }
}

impl Source {
    fn refill(&mut self, now: Instant) {
        let pauses = now.saturating_duration_since(self.counted).as_millis() / PAUSE.as_millis();
        let pauses = u32::try_from(pauses).unwrap_or(u32::MAX).min(UNSIGNED);
        if pauses > 0 {
            self.unsigned = self.unsigned.saturating_add(pauses).min(UNSIGNED);
            self.counted = now;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock();
            let next = state.next();
            if next.is_none() {
                state.running = state.running.saturating_sub(1);
            }
            next
        };
        if let Some(next) = next {
            // When the caller has left meanwhile the turn is dropped here, and so given on.
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

/// A pod or machine may have a whole /64 of IPv6 to itself.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Callers of one source, all of whom stand in the queue.
    async fn crowd(turns: &Turns, source: IpAddr, count: usize) -> tokio::task::JoinSet<Result<Turn, Crowded>> {
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..count {
            let turns = turns.clone();
            callers.spawn(async move { turns.turn(source, true).await });
        }
        waiting(turns, source, count).await;
        callers
    }

    /// Returns when so many of a source wait.
    async fn waiting(turns: &Turns, source: IpAddr, count: usize) {
        while turns.lock().sources.get(&source).is_none_or(|source| source.waiting.len() < count) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn hostile_08_a_crowd_delays_another_source_by_one_question() {
        let turns = Turns::default();
        let mut running = Vec::new();
        for _ in 0..AT_ONCE {
            running.push(turns.turn(address(1), true).await.unwrap());
        }
        let _crowd = crowd(&turns, address(1), WAITING).await;
        let mut honest = crowd(&turns, address(2), 1).await;
        assert_eq!(turns.turn(address(1), true).await.unwrap_err(), Crowded, "the crowd has a bound");
        // Two questions end: the first turn is the crowd's, who came first, the second the honest caller's.
        running.truncate(AT_ONCE - 2);
        let turn = tokio::time::timeout(Duration::from_secs(60), honest.join_next()).await.expect("a turn");
        assert!(turn.unwrap().unwrap().is_ok());
        drop(running);
    }

    #[tokio::test]
    async fn hostile_08_unsigned_tokens_have_a_rate_of_their_own() {
        let turns = Turns::default();
        for _ in 0..UNSIGNED {
            drop(turns.turn(address(1), false).await.unwrap());
        }
        assert_eq!(turns.turn(address(1), false).await.unwrap_err(), Crowded);
        assert!(turns.turn(address(1), true).await.is_ok(), "a signed one of the same source");
        assert!(turns.turn(address(2), false).await.is_ok(), "another source");
        let start = Instant::now();
        let mut state = turns.lock();
        let source = state.source(address(1), start + PAUSE * 3);
        assert!((3..=4).contains(&state.sources[&source].unsigned));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_keeps_no_turn() {
        let turns = Turns::default();
        let mut running = Vec::new();
        for _ in 0..AT_ONCE {
            running.push(turns.turn(address(1), true).await.unwrap());
        }
        let mut gone = crowd(&turns, address(3), 5).await;
        gone.shutdown().await;
        drop(running);
        assert_eq!(turns.lock().running, 0);
    }

    #[test]
    fn sources_are_bounded_and_ipv6_counts_by_network() {
        let (mut state, now) = (State::default(), Instant::now());
        for number in 0..u32::try_from(SOURCES).unwrap() {
            let source = state.source(IpAddr::from(number.to_be_bytes()), now);
            state.sources.get_mut(&source).unwrap().unsigned = 0;
        }
        assert_eq!(state.source(address(9), now), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        assert!(state.sources.len() <= SOURCES + 1);
        let network = |text: &str| group(text.parse().unwrap());
        assert_eq!(network("fd00::1"), network("fd00::2"));
        assert_ne!(network("fd00::1"), network("fd00:0:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }
}
