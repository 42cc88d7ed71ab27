//! A question -> its answer: the mesh, else what is cached, else the nameservers, else what was cached once. Equal
//! questions that wait for nameservers wait together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hickory_resolver::proto::op::ResponseCode;
use tokio::time::{Instant, timeout};

use super::cache::{Cache, Found, Fresh, Key};
use super::counts::{Counts, Outcome};
use super::expand::Zone;
use super::mesh::Mesh;
use super::message::{Answer, Question};
use super::upstream::Upstreams;
use super::{Deps, Settings};
use crate::config::names::Names;

/// How long nameservers are waited for while there is a stale answer. Source: RFC 8767, section 5.
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// Extended error "Stale Answer". Source: RFC 8914, section 4.
const NOTE_STALE: u16 = 3;

/// Extended error "No Reachable Authority".
const NOTE_UNREACHABLE: u16 = 22;

/// What nameservers say, or why they say nothing.
type Lookup = Shared<BoxFuture<'static, Result<Arc<Fresh>, Arc<str>>>>;

/// Everything an answer is made of.
#[derive(Debug)]
pub(super) struct Resolver {
    mesh: Mesh,
    shared: Arc<Beyond>,
    counts: Counts,
}

/// What lies beyond the mesh.
#[derive(Debug)]
struct Beyond {
    upstreams: Upstreams,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cache: Cache,
    /// Questions that nameservers were asked and did not answer yet; no more than clients wait.
    asked: HashMap<Key, Lookup>,
}

/// An answer, and what the client need not wait for.
pub(super) struct Resolved {
    /// The answer.
    pub(super) answer: Answer,
    /// What it is counted as.
    pub(super) outcome: Outcome,
    /// Nameservers that are still waited for, to know better next time.
    pub(super) refresh: Option<Lookup>,
}

impl Resolver {
    /// A resolver with nothing cached.
    pub(super) fn new(settings: &Settings, deps: Deps) -> Self {
        let domain = deps.bootstrap.cluster_domain.clone();
        let zone = Zone::new(&domain, settings.search.iter().cloned(), settings.ndots);
        let upstreams = Upstreams::new(&settings.nameservers);
        let shared = Arc::new(Beyond { upstreams, state: Mutex::default() });
        Self { mesh: Mesh::new(zone, &domain, deps), shared, counts: Counts::default() }
    }

    /// The answer to a question. Takes as long as the control plane may take for a name, and all nameservers after
    /// that; dropping it drops nothing that others wait for.
    pub(super) async fn resolve(&self, question: &Question) -> Resolved {
        if let Some(answer) = self.mesh.answer(question.name(), question.kind()).await {
            return Resolved { answer, outcome: Outcome::Mesh, refresh: None };
        }
        let key = Key::of(question);
        let found = self.shared.state().cache.get(&key, Instant::now());
        let stale = match found {
            Found::Fresh(answer) => return Resolved { answer, outcome: Outcome::Cached, refresh: None },
            Found::Stale(answer) => Some(answer),
            Found::Nothing => None,
        };
        let lookup = self.shared.lookup(key, question);
        let result = match &stale {
            None => Some(lookup.clone().await),
            Some(_) => timeout(STALE_AFTER, lookup.clone()).await.ok(),
        };
        match (result, stale) {
            (Some(Ok(fresh)), _) => {
                Resolved { answer: fresh.answer.clone(), outcome: Outcome::Forwarded, refresh: None }
            }
            (result, Some(mut answer)) => {
                answer.note = Some((NOTE_STALE, "no nameserver answers".to_owned()));
                let refresh = result.is_none().then_some(lookup);
                Resolved { answer, outcome: Outcome::Stale, refresh }
            }
            (result, None) => {
                let reason = result.and_then(Result::err).unwrap_or_default();
                tracing::debug!(name = %question.name(), kind = %question.kind(), %reason, "no answer");
                let note = Some((NOTE_UNREACHABLE, format!("tulle: {reason}")));
                let answer = Answer { note, ..Answer::empty(ResponseCode::ServFail) };
                Resolved { answer, outcome: Outcome::Failed, refresh: None }
            }
        }
    }

    /// What was answered so far.
    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Names of the mesh.
    pub(super) fn names(&self) -> Arc<Names> {
        self.mesh.names()
    }

    /// The nameservers in words.
    pub(super) fn nameservers(&self) -> Vec<String> {
        self.shared.upstreams.lines(Instant::now())
    }

    /// The cache in words.
    pub(super) fn cached(&self) -> Vec<String> {
        self.shared.state().cache.lines(Instant::now())
    }
}

impl Beyond {
    /// The look-up under way for `key`, begun when there is none.
    fn lookup(self: &Arc<Self>, key: Key, question: &Question) -> Lookup {
        let mut state = self.state();
        if let Some(lookup) = state.asked.get(&key) {
            return lookup.clone();
        }
        let (beyond, question, asked) = (Arc::clone(self), question.clone(), key.clone());
        let lookup = async move {
            // Gone from the list with the last who waited, too.
            let _entry = Asked { beyond: Arc::clone(&beyond), key: asked.clone() };
            let fresh = Arc::new(beyond.upstreams.ask(&question).await.map_err(Arc::<str>::from)?);
            beyond.state().cache.put(asked, &fresh, Instant::now());
            Ok(fresh)
        };
        let lookup = lookup.boxed().shared();
        state.asked.insert(key, lookup.clone());
        lookup
    }

    /// The state is whole whatever panicked while holding it: each change is one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry of the questions asked; dropping it removes it.
struct Asked {
    beyond: Arc<Beyond>,
    key: Key,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let lookup = self.beyond.state().asked.remove(&self.key);
        // Not under the lock: it may be the last one.
        drop(lookup);
    }
}
