//! What one worker makes of a snapshot: the same configuration with this core's state beside each cluster.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::balance::outlier::{self, Standing, Verdict};
use crate::balance::{Cursor, Loads, Table};
use crate::base::failure::Reason;
use crate::base::standing::Trust;
use crate::config::cluster::Cluster;
use crate::config::endpoint::Endpoint;
use crate::config::{ClusterId, Snapshot};
use crate::pool::{Budget, Pool};
use crate::telemetry::counters::RequestSeries;
use crate::telemetry::events::Events;

/// How long an endpoint that could not be reached is left alone at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Retries that a cluster may make before its requests have earned any.
const FIRST_TOKENS: f64 = 30.0;

/// A snapshot and this core's state of its clusters. A request holds one view from beginning to end.
#[derive(Debug)]
pub(crate) struct View {
    /// The configuration.
    pub(crate) snapshot: Arc<Snapshot>,
    clusters: Vec<Rc<ClusterState>>,
}

/// One cluster on one core. It survives a change of its endpoints or settings as far as they stay the same.
#[derive(Debug)]
pub(crate) struct ClusterState {
    /// The configuration.
    pub(crate) config: Arc<Cluster>,
    /// Connections, requests and retries under way; shared by all versions of this cluster.
    pub(crate) live: Rc<Live>,
    /// The server spoke first on the last connection whose client waited: the next one is not kept waiting for the client.
    /// A new configuration of the cluster or its endpoints begins without it.
    pub(crate) server_first: Cell<bool>,
    table: Table,
    endpoints: Vec<Rc<EndpointState>>,
}

/// What goes on in a cluster on one core.
#[derive(Debug)]
pub(crate) struct Live {
    /// Connections.
    pub(crate) connections: Rc<Budget>,
    /// Requests in flight.
    pub(crate) requests: Cell<u32>,
    /// Tokens for retries; see `forward/retry.rs`.
    pub(crate) retries: Cell<RetryTokens>,
    cursor: Cell<Cursor>,
    /// An endpoint was chosen since use was reported last.
    used: Cell<bool>,
}

/// Budget of retries: each request earns a share of a retry, time earns the minimum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryTokens {
    /// Retries that may be made now.
    pub(crate) tokens: f64,
    /// When time was last counted.
    pub(crate) counted: Instant,
}

/// One endpoint on one core, as one configuration describes it.
#[derive(Debug)]
pub(crate) struct EndpointState {
    /// The configuration.
    pub(crate) config: Arc<Endpoint>,
    /// What goes on at its address.
    pub(crate) live: Rc<EndpointLive>,
    /// Series by route; an endpoint is reached by very few.
    series: RefCell<Vec<(Arc<str>, Rc<RequestSeries>)>>,
}

/// What goes on at an address with the identity expected there. It is the same whatever else of the endpoint changes:
/// weight, zone, health, priority.
#[derive(Debug)]
pub(crate) struct EndpointLive {
    /// Connections.
    pub(crate) pool: Rc<Pool>,
    /// Requests and opaque connections under way.
    active: Cell<u32>,
    /// Not to be picked before then, and how long the last pause was.
    pause: Cell<Option<(Instant, Duration)>>,
    /// What its requests said of it; see `balance/outlier.rs`.
    standing: Cell<Standing>,
}

/// Counts an endpoint as busy until dropped.
#[derive(Debug)]
pub(crate) struct Active(Rc<EndpointState>);

impl View {
    /// The view of an empty configuration.
    pub(crate) fn empty() -> Rc<Self> {
        Rc::new(Self { snapshot: Arc::default(), clusters: Vec::new() })
    }

    /// The view of `snapshot`, keeping the state of every cluster and endpoint that is in both. `workers` share the
    /// limits of a cluster evenly, each at least 1.
    pub(crate) fn advance(&self, snapshot: Arc<Snapshot>, workers: u32, events: &Arc<Events>) -> Rc<Self> {
        let old: HashMap<&str, &Rc<ClusterState>> = self.clusters.iter().map(|c| (&*c.config.name, c)).collect();
        let clusters = snapshot
            .clusters
            .iter()
            .map(|config| match old.get(&*config.name) {
                Some(state) if Arc::ptr_eq(&state.config, config) || state.config == *config => Rc::clone(state),
                Some(state) => Rc::new(ClusterState::new(config, Some(state), workers, events)),
                None => Rc::new(ClusterState::new(config, None, workers, events)),
            })
            .collect();
        Rc::new(Self { snapshot, clusters })
    }

    /// The state of a cluster of this view's snapshot.
    pub(crate) fn cluster(&self, id: ClusterId) -> Option<&Rc<ClusterState>> {
        self.clusters.get(id.0 as usize)
    }

    /// Every cluster.
    pub(crate) fn clusters(&self) -> &[Rc<ClusterState>] {
        &self.clusters
    }
}

impl ClusterState {
    /// The state of a cluster, taking over what `old` has in common with it.
    pub(crate) fn new(config: &Arc<Cluster>, old: Option<&Self>, workers: u32, events: &Arc<Events>) -> Self {
        let live = old.map_or_else(|| Live::new(events), |old| Rc::clone(&old.live));
        let share = |limit: u32| (limit / workers.max(1)).max(1);
        live.connections.limit(share(config.limits.max_connections), share(config.limits.max_pending));
        // A dead endpoint's pool closes with its last request; a surviving one keeps its connections.
        let mut kept: HashMap<_, _> = old
            .into_iter()
            .flat_map(|old| &old.endpoints)
            .map(|state| ((state.config.address, state.config.identity.clone()), state))
            .collect();
        let same_labels = old.is_some_and(|old| {
            let labels = |config: &'_ Cluster| (config.service.clone(), config.namespace.clone(), config.protocol);
            labels(&old.config) == labels(config)
        });
        let endpoints = config.endpoints.list.iter().map(|endpoint| {
            match kept.remove(&(endpoint.address, endpoint.identity.clone())) {
                Some(state) if same_labels && state.config == *endpoint => Rc::clone(state),
                Some(state) => Rc::new(state.changed(endpoint, same_labels)),
                None => Rc::new(EndpointState::new(endpoint, &live.connections)),
            }
        });
        let endpoints = endpoints.collect();
        let table = Table::new(config.balancer, &config.endpoints, config.failover_threshold_percent);
        Self { config: Arc::clone(config), live, server_first: Cell::new(false), table, endpoints }
    }

    /// Number of endpoints, whatever their health.
    pub(crate) const fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Chooses an endpoint, preferring those not in `tried`, and marks it busy.
    pub(crate) fn pick(&self, rng: &mut impl Rng, tried: &[usize]) -> Result<(usize, Active), Reason> {
        let mut cursor = self.live.cursor.get();
        let index = self.table.pick(&Eyes(&self.endpoints), &mut cursor, rng, tried);
        self.live.cursor.set(cursor);
        self.live.used.set(true);
        let index = index?;
        let endpoint = self.endpoints.get(index).ok_or(Reason::NoEndpoints)?;
        endpoint.picked();
        Ok((index, Active::new(endpoint)))
    }

    /// Takes in what a request said of its endpoint. True: the endpoint is left alone for a while now.
    pub(crate) fn judge(&self, endpoint: &EndpointState, verdict: Verdict) -> bool {
        let Some(settings) = &self.config.outlier else { return false };
        let now = Instant::now().into_std();
        let mut standing = endpoint.live.standing.get();
        let eject = standing.judge(settings, verdict, now) && {
            let ejected = self.endpoints.iter().filter(|other| other.live.standing.get().is_ejected(now)).count();
            outlier::may_eject(settings, ejected, self.endpoints.len())
        };
        if eject {
            standing.eject(settings, now);
        }
        endpoint.live.standing.set(standing);
        eject
    }

    /// Whether anything went this way since this was asked last, or does now.
    pub(crate) fn take_used(&self) -> bool {
        let chosen = self.live.used.replace(false);
        chosen
            || self.live.connections.open() > 0
            || self.endpoints.iter().any(|endpoint| endpoint.live.active.get() > 0)
    }

    /// Closes connections that are idle, or whose peers can no longer prove who they are.
    pub(crate) fn sweep(&self, now: Instant, trust: &Trust) {
        for endpoint in &self.endpoints {
            endpoint.live.pool.sweep(now, self.config.idle_timeout, trust);
        }
    }
}

impl Live {
    fn new(events: &Arc<Events>) -> Rc<Self> {
        Rc::new(Self {
            connections: Budget::new(events),
            requests: Cell::new(0),
            retries: Cell::new(RetryTokens { tokens: FIRST_TOKENS, counted: Instant::now() }),
            cursor: Cell::new(Cursor::new(rand::random())),
            used: Cell::new(false),
        })
    }
}

impl EndpointState {
    /// The state of an endpoint that was not there before.
    fn new(config: &Arc<Endpoint>, budget: &Rc<Budget>) -> Self {
        let pool = Pool::new(config.address, config.identity.clone(), Rc::clone(budget));
        let live = EndpointLive { pool, active: Cell::new(0), pause: Cell::new(None), standing: Cell::default() };
        Self { config: Arc::clone(config), live: Rc::new(live), series: RefCell::default() }
    }

    /// The same endpoint with another configuration. Its series go on while their labels are the same;
    /// `same_labels`: those of its cluster are.
    fn changed(&self, config: &Arc<Endpoint>, same_labels: bool) -> Self {
        let same =
            same_labels && (&self.config.workload, &self.config.namespace) == (&config.workload, &config.namespace);
        let series = if same { self.series.borrow().clone() } else { Vec::new() };
        Self { config: Arc::clone(config), live: Rc::clone(&self.live), series: RefCell::new(series) }
    }

    /// The endpoint was reached.
    pub(crate) fn reached(&self) {
        self.live.pause.set(None);
    }

    /// The endpoint could not be reached: others are preferred for a moment, longer each time.
    pub(crate) fn missed(&self) {
        let pause = self.live.pause.get().map_or(FIRST_PAUSE, |(_, last)| last.saturating_mul(2).min(LONGEST_PAUSE));
        self.live.pause.set(Some((Instant::now() + pause, pause)));
    }

    /// The endpoint was picked. When it could not be reached before, this request finds out whether it can be now, and
    /// others wait for another pause.
    fn picked(&self) {
        if let Some((until, pause)) = self.live.pause.get()
            && Instant::now() >= until
        {
            self.live.pause.set(Some((Instant::now() + pause, pause)));
        }
    }

    fn rests(&self) -> bool {
        let live = &self.live;
        live.pause.get().is_some_and(|(until, _)| Instant::now() < until)
            || !live.standing.get().allows(live.active.get(), || Instant::now().into_std())
    }

    /// The series of requests on `route`, made by `make` at first use.
    pub(crate) fn series(&self, route: &Arc<str>, make: impl FnOnce() -> Rc<RequestSeries>) -> Rc<RequestSeries> {
        let mut known = self.series.borrow_mut();
        // Pointers first: the same route object asks again and again.
        if let Some((_, series)) = known.iter().find(|(name, _)| Arc::ptr_eq(name, route)) {
            return Rc::clone(series);
        }
        known.retain(|(name, _)| name != route);
        let series = make();
        known.push((Arc::clone(route), Rc::clone(&series)));
        series
    }
}

impl Active {
    /// Marks `endpoint` busy.
    pub(crate) fn new(endpoint: &Rc<EndpointState>) -> Self {
        endpoint.live.active.set(endpoint.live.active.get().saturating_add(1));
        Self(Rc::clone(endpoint))
    }

    /// The endpoint.
    pub(crate) const fn endpoint(&self) -> &Rc<EndpointState> {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.live.active.set(self.0.live.active.get().saturating_sub(1));
    }
}

/// The loads of a cluster's endpoints, as the balancer asks for them.
struct Eyes<'e>(&'e [Rc<EndpointState>]);

impl Loads for Eyes<'_> {
    fn active(&self, index: usize) -> u32 {
        self.0.get(index).map_or(0, |endpoint| endpoint.live.active.get())
    }

    fn available(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|endpoint| !endpoint.rests())
    }
}
