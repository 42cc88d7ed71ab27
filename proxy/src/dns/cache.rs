//! Answers of nameservers, kept for their time and, for when no nameserver answers, beyond it. Bounded by bytes, in two
//! generations: what is used moves to the young one, and when that is full the old one goes. Pure: time is given.
//! Source: RFC 2308 (negative answers), RFC 8767 (stale ones).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, Record, RecordType};
use tokio::time::Instant;

use super::message::{Answer, Question};

/// Bytes, by estimate, that one generation may hold; twice that is the most there is.
const GENERATION_BYTES: usize = 1 << 20;

/// Longest time an answer counts as fresh, whatever it says: a day.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// The same for answers without records. RFC 2308 allows hours; a service that was just made should be found sooner.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(300);

/// How long beyond its time an answer may still serve. RFC 8767 suggests one to three days.
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);

/// Lifetime in a stale answer. Source: RFC 8767, section 4.
const STALE_TTL_SECONDS: u32 = 30;

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: Name,
    kind: RecordType,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Key {
    /// The key of a question.
    pub(super) fn of(question: &Question) -> Self {
        Self {
            name: question.name().to_lowercase(),
            kind: question.kind(),
            dnssec_ok: question.dnssec_ok,
            checking_disabled: question.checking_disabled,
        }
    }
}

/// An answer of a nameserver and how long it holds.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    /// The answer.
    pub(super) answer: Answer,
    /// How long it holds; zero: it is not kept.
    pub(super) ttl: Duration,
}

#[derive(Clone, Debug)]
struct Entry {
    fresh: Arc<Fresh>,
    at: Instant,
}

/// What the cache has.
#[derive(Debug)]
pub(super) enum Found {
    /// An answer within its time.
    Fresh(Answer),
    /// One beyond it.
    Stale(Answer),
    /// Nothing.
    Nothing,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    young_bytes: usize,
}

impl Cache {
    /// What there is for `key`, its lifetimes shortened by its age.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Found {
        let entry = match self.young.get(key) {
            Some(entry) => entry.clone(),
            None => match self.old.remove(key) {
                Some(entry) => {
                    self.insert(key.clone(), entry.clone());
                    entry
                }
                None => return Found::Nothing,
            },
        };
        let age = now.saturating_duration_since(entry.at);
        if age < entry.fresh.ttl {
            let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
            return Found::Fresh(with_ttls(&entry.fresh.answer, |ttl| ttl.saturating_sub(age)));
        }
        if age < entry.fresh.ttl.saturating_add(MAX_STALE) {
            return Found::Stale(with_ttls(&entry.fresh.answer, |_| STALE_TTL_SECONDS));
        }
        Found::Nothing
    }

    /// Keeps an answer, unless it says not to.
    pub(super) fn put(&mut self, key: Key, fresh: &Arc<Fresh>, now: Instant) {
        let limit = if fresh.answer.answers.is_empty() { MAX_NEGATIVE_TTL } else { MAX_TTL };
        if fresh.ttl.is_zero() {
            return;
        }
        let fresh = if fresh.ttl > limit {
            Arc::new(Fresh { answer: fresh.answer.clone(), ttl: limit })
        } else {
            Arc::clone(fresh)
        };
        self.old.remove(&key);
        self.insert(key, Entry { fresh, at: now });
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        self.young_bytes = self.young_bytes.saturating_add(cost(&key, &entry));
        if let Some(before) = self.young.insert(key.clone(), entry) {
            self.young_bytes = self.young_bytes.saturating_sub(cost(&key, &before));
        }
        if self.young_bytes > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    /// Each entry in words: name, type, what it holds, seconds left.
    pub(super) fn lines(&self, now: Instant) -> Vec<String> {
        let line = |(key, entry): (&Key, &Entry)| {
            let left = entry.fresh.ttl.saturating_sub(now.saturating_duration_since(entry.at)).as_secs();
            let answer = &entry.fresh.answer;
            format!("{} {} {} {} records, {left} s", key.name, key.kind, answer.code, answer.answers.len())
        };
        let mut lines: Vec<String> = self.young.iter().chain(&self.old).map(line).collect();
        lines.sort();
        lines
    }
}

/// Roughly what an entry holds: records share nothing, and a name or data of one is rarely larger.
fn cost(key: &Key, entry: &Entry) -> usize {
    const RECORD_BYTES: usize = 256;
    let answer = &entry.fresh.answer;
    let records =
        answer.answers.len().saturating_add(answer.authorities.len()).saturating_add(answer.additionals.len());
    records.saturating_add(1).saturating_mul(RECORD_BYTES).saturating_add(key.name.len())
}

fn with_ttls(answer: &Answer, ttl: impl Fn(u32) -> u32) -> Answer {
    let mut answer = answer.clone();
    let all = [&mut answer.answers, &mut answer.authorities, &mut answer.additionals];
    for record in all.into_iter().flatten() {
        let record: &mut Record = record;
        record.ttl = ttl(record.ttl);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::proto::op::ResponseCode;
    use hickory_resolver::proto::rr::RData;
    use hickory_resolver::proto::rr::rdata::A;

    use super::*;

    fn key(name: &str) -> Key {
        let name = Name::from_ascii(name).unwrap();
        Key { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false }
    }

    fn fresh(seconds: u32) -> Arc<Fresh> {
        let record = Record::from_rdata(Name::from_ascii("x.").unwrap(), seconds, RData::A(A(Ipv4Addr::LOCALHOST)));
        let answer = Answer { answers: vec![record], ..Answer::empty(ResponseCode::NoError) };
        Arc::new(Fresh { answer, ttl: Duration::from_secs(seconds.into()) })
    }

    fn ttl(found: &Found) -> Option<(bool, u32)> {
        match found {
            Found::Fresh(answer) => Some((true, answer.answers[0].ttl)),
            Found::Stale(answer) => Some((false, answer.answers[0].ttl)),
            Found::Nothing => None,
        }
    }

    #[test]
    fn an_answer_ages_goes_stale_and_is_forgotten() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(key("x."), &fresh(60), start);
        for (seconds, expected) in [
            (0, Some((true, 60))),
            (59, Some((true, 1))),
            (60, Some((false, 30))),
            (60 + 24 * 3600 - 1, Some((false, 30))),
            (60 + 24 * 3600, None),
        ] {
            let found = cache.get(&key("x."), start + Duration::from_secs(seconds));
            assert_eq!(ttl(&found), expected, "{seconds}");
        }
    }

    #[test]
    fn lifetimes_are_bounded_and_zero_is_not_kept() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(key("zero."), &fresh(0), start);
        assert!(matches!(cache.get(&key("zero."), start), Found::Nothing));
        cache.put(key("long."), &fresh(u32::MAX), start);
        assert!(matches!(cache.get(&key("long."), start + MAX_TTL), Found::Stale(_)));
        let negative = Fresh { answer: Answer::empty(ResponseCode::NXDomain), ttl: Duration::from_secs(9999) };
        cache.put(key("none."), &Arc::new(negative), start);
        assert!(matches!(cache.get(&key("none."), start + Duration::from_secs(299)), Found::Fresh(_)));
        assert!(matches!(cache.get(&key("none."), start + Duration::from_secs(300)), Found::Stale(_)));
    }

    #[test]
    fn it_never_holds_more_than_two_generations_and_keeps_what_is_used() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(key("used."), &fresh(3600), start);
        for n in 0..50_000 {
            cache.put(key(&format!("n{n}.example.")), &fresh(3600), start);
            if n % 100 == 0 {
                assert!(matches!(cache.get(&key("used."), start), Found::Fresh(_)), "{n}");
            }
            assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_BYTES / 512 + 2);
        }
    }
}
