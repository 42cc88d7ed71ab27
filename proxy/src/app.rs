//! Composition root: builds everything once, starts the threads, and waits for the end. No logic.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::admin::{Admin, AdminHandles, Application, Control};
use crate::config::bootstrap::{self, Bootstrap};
use crate::config::demand::Demand;
use crate::config::publish::Publisher;
use crate::config::status::Status;
use crate::connect::own::Own;
use crate::dns::{self, Dns};
use crate::drain::{Drain, DrainTrigger, Held, Phase};
use crate::logging::LogFilter;
use crate::runtime::listen::{self, Bound};
use crate::runtime::shutdown::{self, Ended, Plan, Signals};
use crate::runtime::thread::{self, Role, Start};
use crate::telemetry::access_log::{AccessFormat, AccessLog, AccessWriter};
use crate::telemetry::labels::Direction;
use crate::telemetry::{self, Telemetry};
use crate::tls::keys::Keys;
use crate::worker::Parts;
use crate::{identity, inbound, outbound, xds};

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it listens for traffic, in the order of the settings: captured, explicit inbound, explicit outbound,
    /// outbound by authority.
    pub listeners: Vec<(Direction, SocketAddr)>,
    /// The local admin listener.
    pub admin: SocketAddr,
    /// The listener for probes and metrics.
    pub status: SocketAddr,
    drain: DrainTrigger,
    control: JoinHandle<anyhow::Result<Ended>>,
}

impl Running {
    /// Asks the proxy to end: `at_once`, or after draining.
    pub fn stop(&self, at_once: bool) {
        if at_once {
            self.drain.quit();
        } else {
            self.drain.drain();
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// A thread failed or panicked.
    pub fn join(self) -> anyhow::Result<Ended> {
        self.control.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the control thread panicked")))
    }
}

/// Starts a proxy: binds every listener, then starts the threads. What `signals` makes, within the
/// control thread's runtime, asks it to end.
///
/// # Errors
/// Listeners that cannot be opened, all of them; the system gives no threads.
pub fn start<S: Signals>(
    bootstrap: Bootstrap,
    log: LogFilter,
    signals: impl FnOnce() -> io::Result<S> + Send + 'static,
) -> anyhow::Result<Running> {
    let bootstrap = Arc::new(bootstrap);
    let sockets = listen::bind_all(&wanted(&bootstrap), bootstrap.workers)?;
    let listeners = sockets.first().map(|first| thread::addresses(first)).unwrap_or_default();
    let drain = Drain::new(bootstrap.workers.get());
    let trigger = drain.trigger();
    let (told, started) = std::sync::mpsc::channel();
    let control = std::thread::Builder::new()
        .name("tulle-control".to_owned())
        .spawn(move || control(&bootstrap, sockets, &drain, log, signals, &told))?;
    // The control thread says where it listens, or ends with what is wrong.
    match started.recv() {
        Ok((admin, status)) => Ok(Running { listeners, admin, status, drain: trigger, control }),
        Err(_) => Err(match control.join() {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => anyhow::anyhow!("the control thread ended at once"),
        }),
    }
}

/// Every listening socket and what it is for.
fn wanted(bootstrap: &Bootstrap) -> Vec<(Role, SocketAddr)> {
    let mut wanted = Vec::new();
    if let Some(capture) = &bootstrap.capture {
        wanted.extend(capture.outbound.iter().map(|at| (Role::Outbound(outbound::Route::Captured), *at)));
        wanted.extend(capture.inbound.iter().map(|at| (Role::Inbound(inbound::Route::Captured), *at)));
    }
    wanted.extend(bootstrap.explicit_inbound.iter().map(|explicit| {
        let route = inbound::Route::Application { app: explicit.app, port: explicit.listen.port() };
        (Role::Inbound(route), explicit.listen)
    }));
    wanted.extend(
        bootstrap
            .explicit_outbound
            .iter()
            .map(|explicit| (Role::Outbound(outbound::Route::Service(Arc::clone(&explicit.service))), explicit.listen)),
    );
    wanted.extend(bootstrap.outbound_http.iter().map(|at| (Role::Outbound(outbound::Route::Authority), *at)));
    wanted
}

/// The control thread: discovery, identity, admin and the way down, until all is over.
fn control<S: Signals>(
    bootstrap: &Arc<Bootstrap>,
    sockets: Vec<Vec<Bound<Role>>>,
    drain: &Drain,
    log: LogFilter,
    signals: impl FnOnce() -> io::Result<S>,
    told: &std::sync::mpsc::Sender<(SocketAddr, SocketAddr)>,
) -> anyhow::Result<Ended> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (access, writer) = access_log(bootstrap)?;
    let telemetry = Telemetry::new(telemetry::MAX_SERIES, access);
    let (publisher, keys, status) = (Publisher::new(), Keys::new(), Status::default());
    let (demand, demands) = Demand::channel();
    let names = watch::Sender::default();
    let asking = dns::Deps {
        bootstrap: Arc::clone(bootstrap),
        names: names.subscribe(),
        demand: demand.clone(),
        status: status.clone(),
    };
    let mut parts = Parts {
        settings: Arc::clone(bootstrap),
        snapshots: publisher.subscribe(),
        keys: keys.subscribe(),
        demand,
        status: status.clone(),
        own_sockets: Own::default(),
    };
    let mut handles = AdminHandles {
        snapshot: publisher.subscribe(),
        keys: keys.subscribe(),
        status: status.clone(),
        telemetry: Arc::clone(&telemetry),
        application: Application::of(bootstrap),
        dns: None,
        control: Box::new(Commands { drain: drain.clone(), log }),
    };
    let (bundle, bundles) = watch::channel(None);
    let ended = runtime.block_on(async {
        let mut signals = signals()?;
        let admin = Admin::bind(bootstrap.admin, bootstrap.status).await?;
        let dns = match &bootstrap.dns {
            Some(settings) => Some(Dns::bind(settings, asking).await?),
            None => None,
        };
        handles.dns = dns.as_ref().map(Dns::view);
        parts.own_sockets = own_sockets(bootstrap, &sockets, &admin, dns.as_ref())?;
        let workers = Workers::start(&parts, sockets, &telemetry, drain)?;
        // Whoever started us may have given up meanwhile; then there is nobody to tell.
        let _ = told.send(admin.addresses()?);
        let discovery =
            xds::Deps { bootstrap: Arc::clone(bootstrap), publisher, demands, bundle, names, status: status.clone() };
        let identity = identity::Deps { bootstrap: Arc::clone(bootstrap), keys, bundle: bundles, status };
        let beside = beside_the_path(discovery, identity, dns, admin.run(Arc::new(handles)));
        let plan = Plan { min: bootstrap.drain.min, deadline: bootstrap.drain.deadline };
        let ended = tokio::select! {
            biased;
            ended = shutdown::run(drain, plan, &mut signals) => ended,
            () = beside => anyhow::bail!("the admin listener ended"),
        };
        workers.stop()?;
        anyhow::Ok(ended)
    });
    if let Some(writer) = writer {
        writer.stop();
    }
    ended
}

/// The listeners that nothing on the path may connect to: all but those that take connections for one port of the
/// application, at which a workload without capture is reached by itself, too.
fn own_sockets(
    bootstrap: &Bootstrap,
    sockets: &[Vec<Bound<Role>>],
    admin: &Admin,
    dns: Option<&Dns>,
) -> io::Result<Own> {
    let traffic = sockets.first().into_iter().flatten();
    let traffic = traffic.filter(|bound| !matches!(bound.role, Role::Inbound(inbound::Route::Application { .. })));
    let (local, status) = admin.addresses()?;
    let others = [local, status].into_iter().chain(dns.into_iter().flat_map(Dns::addresses));
    Ok(Own::new(traffic.map(|bound| bound.address).chain(others), bootstrap.pod_ips.iter().copied()))
}

/// Everything that is not traffic, on the control thread. Returns only if the admin listener fails.
async fn beside_the_path(
    discovery: xds::Deps,
    identity: identity::Deps,
    dns: Option<Dns>,
    admin: impl Future<Output = ()>,
) {
    let dns = async {
        match dns {
            Some(dns) => dns.run().await,
            None => std::future::pending().await,
        }
    };
    let announcement = announce(identity.status.clone());
    tokio::select! {
        biased;
        never = Box::pin(xds::run(discovery)) => match never {},
        never = Box::pin(identity::run(identity)) => match never {},
        never = announcement => match never {},
        () = Box::pin(dns) => {}
        () = admin => {}
    }
}

/// Says in the log how long it took to become ready.
async fn announce(status: Status) -> Infallible {
    let started = Instant::now();
    status.ready().await;
    tracing::info!(after_ms = started.elapsed().as_millis(), "ready");
    std::future::pending().await
}

fn access_log(bootstrap: &Bootstrap) -> io::Result<(Option<AccessLog>, Option<AccessWriter>)> {
    let format = match bootstrap.access_log {
        bootstrap::AccessLog::Off => return Ok((None, None)),
        bootstrap::AccessLog::Text => AccessFormat::Text,
        bootstrap::AccessLog::Json => AccessFormat::Json,
    };
    let (log, writer) = AccessLog::start(format, false, io::stdout())?;
    Ok((Some(log), Some(writer)))
}

/// The worker threads.
struct Workers {
    threads: Vec<JoinHandle<io::Result<()>>>,
    stop: watch::Sender<bool>,
}

impl Workers {
    fn start(
        parts: &Parts,
        sockets: Vec<Vec<Bound<Role>>>,
        telemetry: &Arc<Telemetry>,
        drain: &Drain,
    ) -> io::Result<Self> {
        let stop = watch::Sender::new(false);
        let threads = sockets.into_iter().enumerate().map(|(index, sockets)| {
            thread::start(Start {
                index,
                parts: parts.clone(),
                sockets,
                telemetry: Arc::clone(telemetry),
                drain: drain.clone(),
                stop: stop.subscribe(),
            })
        });
        Ok(Self { threads: threads.collect::<io::Result<_>>()?, stop })
    }

    fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            match thread.join() {
                Ok(result) => result.with_context(|| name)?,
                Err(_) => anyhow::bail!("{name} panicked"),
            }
        }
        Ok(())
    }
}

/// What may be asked for on the admin port.
#[derive(Debug)]
struct Commands {
    drain: Drain,
    log: LogFilter,
}

impl Control for Commands {
    fn drain(&self) {
        self.drain.trigger().drain();
    }

    fn quit(&self) {
        self.drain.trigger().quit();
    }

    fn hold(&self) -> Held {
        self.drain.hold()
    }

    fn is_draining(&self) -> bool {
        *self.drain.phase().borrow() > Phase::Running
    }

    fn log_filter(&self) -> String {
        self.log.get()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        self.log.set(filter)
    }
}
