//! Wiring: sources, registry, streams, certificates and admin pages, from start to a graceful end.
//!
//! `run` is the program; `start` is the same for a process that embeds the control plane and wants its addresses.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::transport::server::TcpIncoming;
use tulle_identity::token::TokenIssuer;

use crate::admin;
use crate::caller::{Callers, Reviewer};
use crate::clock::Clock;
use crate::identity::{Authority, Ca, SecretStore, Serving};
use crate::metrics::Metrics;
use crate::model::Delta;
use crate::quota::InUse;
use crate::registry::{Input, Registry};
use crate::server::{self, Services, TlsIncoming, Tuning};
use crate::settings::{Settings, Source, not_loopback};
use crate::source::file::FileSource;
use crate::source::kube::{self, KubeSource, Sink};
use crate::status;
use crate::translate::Translator;
use crate::xds::{Admission, Interest, Proxies, Shared};

/// Clients that receive their first configuration at once.
const INITIAL_SYNCS: usize = 64;

/// Streams are told at once that the end has come; connections that linger are cut after this.
const DRAIN: Duration = Duration::from_secs(5);

/// Keys in a cluster that does not answer are tried again after this.
const KEYS_AGAIN: Duration = Duration::from_secs(2);

/// Runs until `shutdown` resolves, then ends streams, lets calls in flight finish for up to 5 s, and returns.
///
/// # Errors
/// When it cannot start, see [`start`], or when a listener fails while it runs.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut shutdown = pin!(shutdown);
    let handle = tokio::select! {
        biased; // a cluster that does not answer keeps nobody from ending
        () = &mut shutdown => return Ok(()),
        started = Box::pin(start(settings)) => started?,
    };
    let failed = tokio::select! {
        biased; // asked to end and failing at once is an orderly end
        () = &mut shutdown => false,
        () = handle.shutdown.cancelled() => true,
    };
    handle.shutdown().await;
    if failed {
        bail!("a listener failed; see the log");
    }
    Ok(())
}

/// A running control plane. Dropping it begins a shutdown without waiting for its end.
#[derive(Debug)]
pub struct Handle {
    /// Where proxies connect, with TLS.
    pub xds_addr: SocketAddr,
    /// Where clients on this machine connect without, if asked for.
    pub plaintext_addr: Option<SocketAddr>,
    /// Health, metrics and debug pages.
    pub admin_addr: SocketAddr,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    _source: Running,
    _stop: DropGuard,
    /// Answers until the very end, so that probes see what happens.
    _admin: AbortOnDropHandle<()>,
}

impl Handle {
    /// Ends streams, lets calls in flight finish for up to 5 s, and returns.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

/// Starts a control plane in this runtime and returns once its ports are open. Discovery answers begin when the
/// sources have delivered their first set.
///
/// # Errors
/// When the state directory cannot be used, a port cannot be bound, or the plaintext address is not loopback. Nothing
/// is left running then.
pub async fn start(settings: Settings) -> anyhow::Result<Handle> {
    if let Some(address) = settings.xds_plaintext_address.filter(|address| !address.ip().is_loopback()) {
        bail!(not_loopback(address));
    }
    let metrics = Metrics::default();
    let Keys { issuer, authority, client } = keys(&settings).await?;
    let verifier = Arc::new(issuer.verifier());
    let serving = Serving::new(authority.clone(), &settings, metrics.clone(), Clock::system())
        .context("issuing the serving certificate")?;

    let xds = bind(settings.xds_address).await?;
    let plaintext = match settings.xds_plaintext_address {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let admin = bind(settings.admin_address).await?;
    let (xds_addr, admin_addr) = (xds.local_addr()?, admin.local_addr()?);
    let plaintext_addr = plaintext.as_ref().map(TcpListener::local_addr).transpose()?;

    let shutdown = CancellationToken::new();
    let stop = shutdown.clone().drop_guard();
    let tasks = TaskTracker::new();
    let (registry, source) = watch(&settings, client.as_ref())?;
    let changes = registry.changes().context("the registry runs")?;
    let interest = Interest::default();
    let quotas = InUse::new(settings.quotas, metrics.clone());
    let shared = Arc::new(Shared {
        translator: Arc::new(
            Translator::new(&settings.cluster_domain, settings.trust_domain.clone()).with_ranges(&settings.mesh_ranges),
        ),
        registry: registry.clone(),
        bundle: authority.bundle(),
        admission: Admission::new(INITIAL_SYNCS),
        interest: interest.clone(),
        proxies: Proxies::default(),
        quotas: quotas.clone(),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        clock: Clock::system(),
    });
    let reviewer = client.as_ref().map(|client| Arc::new(Reviewer::new(client.clone(), registry.subscribe())));
    let callers = Callers::new(verifier, reviewer, settings.trust_domain.clone());
    let services = |callers: &Callers| Services {
        shared: shared.clone(),
        callers: callers.clone(),
        ca: Ca::new(authority.clone(), callers.clone(), (metrics.clone(), quotas.clone()), settings.leaf_ttl),
    };

    let (incoming, accepting) = TlsIncoming::new(xds, serving.configs(), metrics.clone(), Tuning::default());
    spawn_until(&tasks, &shutdown, accepting);
    spawn_until(&tasks, &shutdown, serving.run());
    spawn_until(&tasks, &shutdown, interest.follow(changes));
    if let Some(client) = client {
        let written = status::run(client, registry.subscribe(), authority.bundle());
        spawn_until(&tasks, &shutdown, written);
        let authority = authority.clone();
        spawn_until(&tasks, &shutdown, async move { authority.follow().await });
    }
    let ending = || shutdown.clone().cancelled_owned();
    tasks.spawn(grpc("TLS", shutdown.clone(), server::serve(services(&callers), incoming, ending())));
    if let Some(listener) = plaintext {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let services = services(&callers.or_anonymous());
        tasks.spawn(grpc("plaintext", shutdown.clone(), server::serve(services, incoming, ending())));
    }
    let pages = Arc::new(admin::State {
        registry,
        proxies: shared.proxies.clone(),
        authority,
        exported: metrics.registry(),
        metrics,
        shutdown: shutdown.clone(),
    });
    #[expect(clippy::disallowed_methods, reason = "beside every path, and ended by the handle")]
    let admin = AbortOnDropHandle::new(tokio::spawn(admin::serve(admin, pages)));
    tracing::info!(xds = %xds_addr, plaintext = ?plaintext_addr, admin = %admin_addr, "the control plane serves");
    Ok(Handle { xds_addr, plaintext_addr, admin_addr, shutdown, tasks, _source: source, _stop: stop, _admin: admin })
}

/// What the control plane signs with.
struct Keys {
    issuer: TokenIssuer,
    authority: Arc<Authority>,
    /// The cluster they are kept in.
    client: Option<kube::Client>,
}

/// Opens the keys. In a cluster it waits for an API that does not answer yet.
async fn keys(settings: &Settings) -> anyhow::Result<Keys> {
    match &settings.source {
        Source::File => {
            // First, because it makes the state directory.
            let issuer = TokenIssuer::open(&settings.state_dir).context("opening the token key")?;
            let authority = Authority::open(settings).context("opening the certificate authority")?;
            Ok(Keys { issuer, authority: Arc::new(authority), client: None })
        }
        Source::Kubernetes(kubeconfig) => {
            let client = kube::client(kubeconfig.as_deref()).await.context("no cluster to be seen")?;
            let (store, found, issuer) = loop {
                match SecretStore::open(client.clone(), settings).await {
                    Ok(opened) => break opened,
                    Err(error) => {
                        tracing::error!(%error, again_in = ?KEYS_AGAIN, "the keys cannot be opened");
                        tokio::time::sleep(KEYS_AGAIN).await;
                    }
                }
            };
            let authority = Arc::new(Authority::in_cluster(store, found, settings));
            Ok(Keys { issuer, authority, client: Some(client) })
        }
    }
}

/// A running source.
#[derive(Debug)]
#[expect(dead_code, reason = "dropping it ends the source")]
enum Running {
    Files(FileSource),
    Cluster(KubeSource),
}

/// Starts the registry and its sources.
fn watch(settings: &Settings, client: Option<&kube::Client>) -> anyhow::Result<(Arc<Registry>, Running)> {
    let sources = if client.is_some() { KubeSource::SOURCES } else { 1 };
    let (registry, mut inputs) = Registry::start(sources, settings.mtls_floor);
    let source = match client {
        Some(client) => Running::Cluster(KubeSource::start(client, inputs, settings.workload_ranges.clone())),
        None => {
            let input = inputs.pop().context("the registry has an input for its source")?;
            let sink = move |step| input.send_blocking(step).is_ok();
            Running::Files(FileSource::start(&settings.config_dir, sink)?)
        }
    };
    Ok((Arc::new(registry), source))
}

impl Sink for Input {
    async fn send(&self, step: Vec<Delta>) -> bool {
        Self::send(self, step).await.is_ok()
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

/// Runs a task that has nothing to finish: it is dropped when the shutdown begins.
fn spawn_until(tasks: &TaskTracker, shutdown: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        tokio::select! {
            biased; // a shutdown that has begun is not raced
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    });
}

/// Serves a listener; its end before the shutdown is the end of the process.
async fn grpc(
    listener: &'static str,
    shutdown: CancellationToken,
    served: impl Future<Output = Result<(), tonic::transport::Error>>,
) {
    let ended = served.await;
    if !shutdown.is_cancelled() {
        tracing::error!(listener, ?ended, "serving failed");
        shutdown.cancel();
    }
}
