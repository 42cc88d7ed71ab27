//! All state of one core. `Rc` and `Cell` throughout: the compiler refuses to move a connection to another thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tulle_identity::tls::MeshTls;

use crate::base::protocol::Protocol;
use crate::base::standing::{Standing, Trust};
use crate::codec::h1::parse;
use crate::config::bootstrap::Bootstrap;
use crate::config::cluster::{Cluster, HttpVersion, Limits, Policy, RetryBudget};
use crate::config::demand::{Demand, DemandKey};
use crate::config::endpoint::{Endpoint, Endpoints, Health};
use crate::config::listener::InboundPort;
use crate::config::status::Status;
use crate::config::{Known, Snapshot};
use crate::connect::own::Own;
use crate::connect::{KEEPALIVE, SocketOptions};
use crate::detect::Patience;
use crate::drain::DrainSignal;
use crate::lifetime::{Lifetime, Lifetimes};
use crate::pool::Dial;
use crate::telemetry::WorkerTelemetry;
use crate::telemetry::labels::Party;
use crate::telemetry::refusals::Refusals;
use crate::view::{ClusterState, View};

/// Local applications remembered; past it those not in use are forgotten.
const MAX_LOCALS: usize = 1024;

/// Unanswered questions remembered.
const MAX_UNANSWERED: usize = 1024;

/// Longest time for a TLS handshake with a downstream.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer is waited for that can be expected: as long as a connect may take, for it is a part of one.
const PATIENT_WAIT: Duration = Duration::from_secs(10);

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often the control thread is told what is used; it forgets after many times that.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// What a worker is made from: values every thread may hold.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Settings of the process.
    pub(crate) settings: Arc<Bootstrap>,
    /// The configuration, as it is published.
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Our identity, as it is renewed.
    pub(crate) keys: watch::Receiver<Option<Arc<MeshTls>>>,
    /// How to ask for destinations.
    pub(crate) demand: Demand,
    /// Whether there is somebody to ask.
    pub(crate) status: Status,
    /// The proxy's own listeners and addresses.
    pub(crate) own_sockets: Own,
}

/// All state of one core.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Settings of the process.
    pub(crate) settings: Arc<Bootstrap>,
    /// This worker's counters.
    pub(crate) telemetry: Rc<WorkerTelemetry>,
    /// Ourselves, as source or destination in telemetry.
    pub(crate) own: Party,
    /// The state of shutting down.
    pub(crate) drain: DrainSignal,
    /// The proxy's own listeners and addresses.
    pub(crate) own_sockets: Own,
    /// Lines about refused connections.
    pub(crate) refusals: Refusals,
    lifetimes: Rc<Lifetimes>,
    /// Random source.
    pub(crate) rng: RefCell<SmallRng>,
    demand: Demand,
    status: Status,
    options: SocketOptions,
    view: RefCell<Rc<View>>,
    keys: RefCell<Option<Arc<MeshTls>>>,
    issued: watch::Receiver<Option<Arc<MeshTls>>>,
    changed: Notify,
    unanswered: RefCell<HashMap<DemandKey, Instant>>,
    reported: Cell<Instant>,
    locals: RefCell<HashMap<(SocketAddr, HttpVersion), Rc<ClusterState>>>,
}

impl Worker {
    /// A worker with an empty configuration.
    pub(crate) fn new(parts: &Parts, telemetry: Rc<WorkerTelemetry>, drain: DrainSignal) -> Rc<Self> {
        let settings = Arc::clone(&parts.settings);
        let identity = settings.identity().map_or_else(|| Arc::from(""), |id| Arc::from(id.as_str()));
        let own = Party {
            workload: settings.node.workload.as_str().into(),
            namespace: settings.node.namespace.as_str().into(),
            identity,
        };
        Rc::new(Self {
            telemetry,
            own,
            drain,
            own_sockets: parts.own_sockets.clone(),
            refusals: Refusals::default(),
            lifetimes: Rc::default(),
            rng: RefCell::new(rand::make_rng()),
            demand: parts.demand.clone(),
            status: parts.status.clone(),
            options: SocketOptions { mark: settings.mark, keepalive: Some(KEEPALIVE) },
            view: RefCell::new(View::empty()),
            keys: RefCell::default(),
            issued: parts.keys.clone(),
            changed: Notify::new(),
            unanswered: RefCell::default(),
            reported: Cell::new(Instant::now()),
            locals: RefCell::default(),
            settings,
        })
    }

    /// How long to wait for what a connection speaks. `guess`: without a word in time it is opaque.
    pub(crate) fn patience(&self, guess: bool) -> Patience {
        let limits = &self.settings.limits;
        let detect = self.settings.detect_timeout;
        let (silent, speaking) = if guess { (detect, detect) } else { (limits.downstream_idle, limits.header_timeout) };
        Patience { silent, speaking }
    }

    /// Takes over configuration and identity as they change, and closes idle connections. Never returns.
    pub(crate) async fn follow(self: Rc<Self>, mut parts: Parts) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        self.advance(parts.snapshots.borrow_and_update().clone());
        self.keys.replace(parts.keys.borrow_and_update().clone());
        loop {
            tokio::select! {
                // Keys before the endpoints that may need them; idle connections whenever there is nothing else.
                biased;
                Ok(()) = parts.keys.changed() => {
                    self.keys.replace(parts.keys.borrow_and_update().clone());
                    self.review(Instant::now());
                }
                Ok(()) = parts.snapshots.changed() => self.advance(parts.snapshots.borrow_and_update().clone()),
                now = sweep.tick() => self.sweep(now),
            }
        }
    }

    fn advance(&self, snapshot: Arc<Snapshot>) {
        let workers = u32::try_from(self.settings.workers.get()).unwrap_or(u32::MAX);
        let next = self.view().advance(snapshot, workers, self.telemetry.events());
        self.telemetry.events().generation.set(next.snapshot.generation);
        let before = self.view.replace(Rc::clone(&next));
        self.changed.notify_waiters();
        let rules = (before.snapshot.inbound.as_ref(), next.snapshot.inbound.as_ref());
        if !matches!(rules, (Some(old), Some(new)) if Arc::ptr_eq(old, new)) {
            self.review(Instant::now());
        }
    }

    /// What connections are judged by now.
    fn trust(&self) -> Trust {
        let bundle = self.keys.borrow().as_ref().map(|keys| Arc::clone(&keys.identity().bundle));
        Trust { now: SystemTime::now(), bundle }
    }

    /// Ends inbound connections that may not go on.
    fn review(&self, now: Instant) {
        self.lifetimes.review(&self.trust(), now, self.view().snapshot.inbound.as_deref());
    }

    /// Lists an inbound connection to `port`, so that it ends when it may not go on.
    pub(crate) fn list(&self, standing: Option<Standing>, port: u16) -> Rc<Lifetime> {
        // Spread, so that connections made together do not end together.
        let age = self.settings.max_connection_age;
        let age = age.map(|age| age.mul_f64(self.rng.borrow_mut().random_range(0.9..1.1)));
        self.lifetimes.list(standing, port, age)
    }

    fn sweep(&self, now: Instant) {
        let trust = self.trust();
        for cluster in self.view().clusters() {
            cluster.sweep(now, &trust);
        }
        for cluster in self.locals.borrow().values() {
            cluster.sweep(now, &trust);
        }
        self.review(now);
        if now.saturating_duration_since(self.reported.get()) >= REPORT_EVERY {
            self.reported.set(now);
            let used = |cluster: &Rc<ClusterState>| cluster.take_used().then(|| Arc::clone(&cluster.config.name));
            self.demand.used(self.view().clusters().iter().filter_map(used).collect());
        }
    }

    /// The configuration as it is now. Held from the beginning of a request to its end.
    pub(crate) fn view(&self) -> Rc<View> {
        Rc::clone(&self.view.borrow())
    }

    /// Our identity as it is now. At the very start the process may have one, and be ready, that this core was not told
    /// of yet; where there is none, to ask costs one load and no lock.
    pub(crate) fn keys(&self) -> Option<Arc<MeshTls>> {
        let own = self.keys.borrow().clone();
        if own.is_none() && self.issued.has_changed().unwrap_or(false) {
            return self.issued.borrow().clone();
        }
        own
    }

    /// What `key` stands for. If it was never asked for, asks and waits for the answer, for a bounded time; none when
    /// there was no answer. Silence is not an answer, but who asks again soon does not wait for it again.
    pub(crate) async fn resolve(&self, key: &DemandKey) -> (Rc<View>, Option<Known>) {
        let view = self.view();
        if let Some(known) = view.snapshot.known(key).cloned() {
            return (view, Some(known));
        }
        if self.settings.control_plane.is_none() {
            return (view, None);
        }
        if self.unanswered.borrow().get(key).is_some_and(|until| Instant::now() < *until) {
            self.demand.want(key.clone());
            // What is refused without an answer is waited for again as soon as one can be expected.
            let refused = matches!(key, DemandKey::Addr(address) if self.may_be_meshed(address.ip()));
            if !(refused && self.status.is_connected()) {
                return (view, None);
            }
        }
        let answer = async {
            loop {
                let changed = self.changed.notified();
                let view = self.view();
                if let Some(known) = view.snapshot.known(key).cloned() {
                    return (view, known);
                }
                self.demand.want(key.clone());
                changed.await;
            }
        };
        if let Some((view, known)) = self.wait(answer).await {
            return (view, Some(known));
        }
        let view = self.view();
        if !self.untold(&view) {
            self.remember_unanswered(key);
        }
        (view, None)
    }

    /// A cluster as a newer configuration than the caller's has it; waits for one until `deadline`. None: it stays as it is,
    /// or has gone.
    pub(crate) async fn replaced(&self, cluster: &Rc<ClusterState>, deadline: Instant) -> Option<Rc<ClusterState>> {
        let newer = async {
            loop {
                let changed = self.changed.notified();
                let view = self.view();
                let now = view.clusters().iter().find(|now| now.config.name == cluster.config.name)?;
                if !Rc::ptr_eq(now, cluster) {
                    return Some(Rc::clone(now));
                }
                changed.await;
            }
        };
        tokio::time::timeout_at(deadline, newer).await.ok().flatten()
    }

    /// Waits for what the control plane is to say: longer while there is reason to expect it, since it is there, or
    /// since without it nothing can be done.
    async fn wait<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        let wait = self.settings.demand_wait;
        if let Ok(answer) = tokio::time::timeout(wait, &mut answer).await {
            return Some(answer);
        }
        if !self.untold(&self.view()) && !self.status.is_connected() {
            return None;
        }
        tokio::time::timeout(PATIENT_WAIT.saturating_sub(wait), answer).await.ok()
    }

    /// Whether the proxy was told nothing yet, neither by its control plane nor by its last-good file.
    pub(crate) fn untold(&self, view: &View) -> bool {
        self.settings.control_plane.is_some() && view.snapshot.generation == 0
    }

    /// Whether a connection to `address`, about which there is no answer, may be one to a meshed workload: the address
    /// belongs to the mesh, or it is not known yet which do.
    pub(crate) fn may_be_meshed(&self, address: IpAddr) -> bool {
        self.settings.control_plane.is_some() && !self.view().snapshot.is_beyond_the_mesh(address)
    }

    fn remember_unanswered(&self, key: &DemandKey) {
        let now = Instant::now();
        let mut unanswered = self.unanswered.borrow_mut();
        if unanswered.len() >= MAX_UNANSWERED {
            unanswered.retain(|_, until| now < *until);
        }
        if unanswered.len() < MAX_UNANSWERED {
            unanswered.insert(key.clone(), now + self.settings.absent_ttl);
        }
    }

    /// The rules for connections to one of the workload's own ports. At the very start, when they are known to the
    /// process but not to this core yet, waits for them, for a bounded time.
    pub(crate) async fn inbound_port(&self, port: u16) -> Option<Arc<InboundPort>> {
        let rules = |view: &View| view.snapshot.inbound.as_ref().map(|inbound| Arc::clone(inbound.port(port)));
        if let Some(rules) = rules(&self.view()) {
            return Some(rules);
        }
        let known = async {
            loop {
                let changed = self.changed.notified();
                if let Some(rules) = rules(&self.view()) {
                    return rules;
                }
                changed.await;
            }
        };
        self.wait(known).await
    }

    /// The local application at `address`, received on a port with these rules.
    pub(crate) fn local(&self, address: SocketAddr, port: &InboundPort) -> Rc<ClusterState> {
        let http = match port.protocol {
            Protocol::Http2 | Protocol::Grpc => HttpVersion::Http2,
            Protocol::Auto | Protocol::Http | Protocol::Tcp | Protocol::Tls => HttpVersion::AsDownstream,
        };
        let config = Arc::new(local_cluster(address, port, http));
        let mut locals = self.locals.borrow_mut();
        let old = locals.get(&(address, http));
        if let Some(state) = old.filter(|state| state.config == config) {
            return Rc::clone(state);
        }
        // Other rules for the same application: its connections stay, its name in telemetry does not.
        let state = Rc::new(ClusterState::new(&config, old.map(|old| &**old), 1, self.telemetry.events()));
        if locals.len() >= MAX_LOCALS {
            locals.retain(|_, state| state.live.connections.open() > 0);
        }
        locals.insert((address, http), Rc::clone(&state));
        state
    }

    /// An address that no configuration speaks of, dialled as it is.
    pub(crate) fn passthrough(&self, address: SocketAddr) -> Rc<ClusterState> {
        let port = InboundPort {
            protocol: Protocol::Tcp,
            mtls: crate::config::listener::MtlsMode::Disable,
            service: "".into(),
            namespace: "".into(),
        };
        let cluster = local_cluster(address, &port, HttpVersion::AsDownstream);
        Rc::new(ClusterState::new(&Arc::new(cluster), None, 1, self.telemetry.events()))
    }

    /// How to make connections to the endpoints of `cluster`.
    pub(crate) fn dial<'d>(&'d self, cluster: &Cluster, keys: Option<&'d Arc<MeshTls>>) -> Dial<'d> {
        // Without capture a sidecar's own listener stands at the workload's address.
        let own = if self.settings.capture.is_some() { self.settings.pod_ips.as_slice() } else { &[] };
        let (timeout, heads) = (cluster.connect_timeout, self.head_limits());
        Dial { keys, own, own_sockets: &self.own_sockets, timeout, options: &self.options, heads }
    }

    /// Limits on received heads.
    pub(crate) fn head_limits(&self) -> parse::Limits {
        let limits = &self.settings.limits;
        parse::Limits { bytes: limits.max_header_bytes, fields: limits.max_headers }
    }
}

/// A cluster of one address, reached in plain.
fn local_cluster(address: SocketAddr, port: &InboundPort, http: HttpVersion) -> Cluster {
    let endpoint = Endpoint {
        address,
        health: Health::Healthy,
        weight: 1,
        priority: 0,
        identity: None,
        workload: "".into(),
        namespace: "".into(),
        zone: "".into(),
    };
    Cluster {
        name: format!("local:{}", address.port()).into(),
        service: Arc::clone(&port.service),
        namespace: Arc::clone(&port.namespace),
        protocol: port.protocol,
        http,
        balancer: Policy::Random,
        connect_timeout: Duration::from_secs(10),
        // Shorter than what common servers keep idle connections for, so that we close first.
        idle_timeout: Duration::from_secs(4),
        limits: Limits::default(),
        budget: RetryBudget::default(),
        failover_threshold_percent: 0,
        outlier: None,
        endpoints: Arc::new(Endpoints { list: vec![Arc::new(endpoint)] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ranges::Ranges;
    use crate::drain::Drain;
    use crate::telemetry::Telemetry;

    #[tokio::test(start_paused = true)]
    async fn what_is_used_is_told_once_a_minute() {
        let port = InboundPort {
            protocol: Protocol::Http,
            mtls: crate::config::listener::MtlsMode::Disable,
            service: "".into(),
            namespace: "".into(),
        };
        let cluster = |name: &str| {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            Arc::new(Cluster { name: name.into(), ..local_cluster(address, &port, HttpVersion::AsDownstream) })
        };
        let (_, snapshots) = watch::channel(Arc::default());
        let (_, keys) = watch::channel(None);
        let (demand, mut demands) = Demand::channel();
        let settings = Arc::new(Bootstrap::parse(["tulle-proxy"]).unwrap());
        let status = Status::default();
        let parts = Parts { settings, snapshots, keys, demand, status, own_sockets: Own::default() };
        let worker = Worker::new(&parts, Telemetry::new(10, None).worker(), Drain::new(1).signal(0));
        let clusters = vec![cluster("a"), cluster("b")];
        worker.advance(Arc::new(Snapshot { clusters: clusters.clone(), ..Snapshot::default() }));
        let start = Instant::now();
        let mut told = |worker: &Worker, minutes: u64| {
            worker.sweep(start + Duration::from_secs(60 * minutes));
            demands.uses.try_recv().ok().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let pick = |index: usize| {
            let cluster = Rc::clone(&worker.view().clusters()[index]);
            cluster.pick(&mut *worker.rng.borrow_mut(), &[]).unwrap().1
        };
        drop(pick(1));
        assert_eq!(told(&worker, 0), None, "not yet");
        assert_eq!(told(&worker, 1), Some(vec!["b".to_owned()]));
        assert_eq!(told(&worker, 2), Some(vec![]), "nothing is told too");
        let busy = pick(0);
        assert_eq!(told(&worker, 3), Some(vec!["a".to_owned()]));
        assert_eq!(told(&worker, 4), Some(vec!["a".to_owned()]), "a connection is open");
        drop(busy);
        assert_eq!(told(&worker, 5), Some(vec![]));
        drop(pick(0));
        worker.advance(Arc::new(Snapshot { clusters, ..Snapshot::default() }));
        assert_eq!(told(&worker, 6), Some(vec!["a".to_owned()]), "a change of configuration loses nothing");
    }

    /// A worker, and all that it hears from.
    struct Set {
        worker: Rc<Worker>,
        snapshots: crate::config::publish::Publisher,
        demands: crate::config::demand::Demands,
        status: Status,
    }

    fn set() -> Set {
        let flags =
            "tulle-proxy --workload a --control-plane a:1 --trust-bundle b --token c --demand-wait 2s --absent-ttl 10s";
        let snapshots = crate::config::publish::Publisher::new();
        let (_, keys) = watch::channel(None);
        let (demand, demands) = Demand::channel();
        let settings = Arc::new(Bootstrap::parse(flags.split(' ')).unwrap());
        let status = Status::default();
        let own_sockets = Own::default();
        let parts =
            Parts { settings, snapshots: snapshots.subscribe(), keys, demand, status: status.clone(), own_sockets };
        let worker = Worker::new(&parts, Telemetry::new(10, None).worker(), Drain::new(1).signal(0));
        Set { worker, snapshots, demands, status }
    }

    impl Set {
        /// The control plane says something, though not what is asked for.
        fn tell(&self) {
            self.snapshots.publish(Snapshot::default());
            self.worker.advance(self.snapshots.subscribe().borrow().clone());
        }

        /// How long a question was waited for that got no answer.
        async fn waited(&mut self) -> Duration {
            self.waited_for(&DemandKey::Name("reviews.shop.svc.cluster.local:80".into())).await
        }

        async fn waited_for(&mut self, key: &DemandKey) -> Duration {
            let before = Instant::now();
            let (_, known) = self.worker.resolve(key).await;
            assert!(known.is_none());
            assert_eq!(self.demands.queue.try_recv().as_ref(), Ok(key));
            while self.demands.queue.try_recv().is_ok() {}
            before.elapsed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_waited_for_once_in_a_while() {
        let mut set = set();
        set.tell();
        assert_eq!(set.waited().await, Duration::from_secs(2));
        assert_eq!(set.waited().await, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(set.waited().await, Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_there_is_waited_for_longer() {
        let mut set = set();
        set.tell();
        set.status.update(|facts| facts.connected = true);
        assert_eq!(set.waited().await, PATIENT_WAIT);
        assert_eq!(set.waited().await, Duration::ZERO);
    }

    /// Addresses: inside the ranges silence is a refusal, which ends as soon as an answer can be expected.
    #[tokio::test(start_paused = true)]
    async fn hostile_07_silence_about_an_address_of_the_mesh_is_not_remembered_while_connected() {
        let mut set = set();
        let inside: SocketAddr = "10.96.0.12:80".parse().unwrap();
        assert!(set.worker.may_be_meshed(inside.ip()), "before anything is known");
        let ranges = Ranges { list: ["10.0.0.0/8".parse().unwrap()].into() };
        set.snapshots.publish(Snapshot { ranges: Some(Arc::new(ranges)), ..Snapshot::default() });
        set.worker.advance(set.snapshots.subscribe().borrow().clone());
        assert!(set.worker.may_be_meshed(inside.ip()) && !set.worker.may_be_meshed([203, 0, 113, 1].into()));
        let key = DemandKey::Addr(inside);
        assert_eq!(set.waited_for(&key).await, Duration::from_secs(2));
        assert_eq!(set.waited_for(&key).await, Duration::ZERO);
        set.status.update(|facts| facts.connected = true);
        assert_eq!(set.waited_for(&key).await, PATIENT_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_nothing_waits_each_time_and_stays_so_only_until_the_first_word() {
        let mut set = set();
        assert_eq!(set.waited().await, PATIENT_WAIT);
        assert_eq!(set.waited().await, PATIENT_WAIT);
        assert!(set.worker.untold(&set.worker.view()));
        set.tell();
        assert!(!set.worker.untold(&set.worker.view()));
        assert_eq!(set.waited().await, Duration::from_secs(2));
    }
}
