//! A `tulle-proxy` beside an application, without capture: every listener is given, so neither root nor redirect rules
//! are needed. Each sidecar has a loopback address of its own.
//!
//! ```no_run
//! # async fn example() {
//! use std::sync::Arc;
//! use tulle_testing::{certs::Ca, client, control::Control, sidecar::Sidecar, upstream::{Reply, Upstream}};
//! let control = Control::start(Arc::new(Ca::new())).await;
//! let app = Upstream::http1(|_| Reply::ok("hello")).await;
//! let server = Sidecar::of("shop", "reviews").control(&control).receive(8080, app.addr()).start().await;
//! let client = Sidecar::of("shop", "web").control(&control).send("reviews.shop.svc.cluster.local:80").start().await;
//! // ... publish resources with server.inbound(8080) as the endpoint, then:
//! let reply = client::raw::get(client.outbound("reviews.shop.svc.cluster.local:80"), "/", "reviews.shop").await;
//! # }
//! ```

use std::net::{IpAddr, SocketAddr};
use std::process::ExitStatus;
use std::time::Duration;

use crate::control::Control;
use crate::ports;
use crate::process::Process;

/// First port of outbound listeners for single services.
const FIRST_OUTBOUND: u16 = 16000;
/// Outbound listener for HTTP to any service.
const HTTP: u16 = 15080;
/// Admin, as on any machine.
const ADMIN: u16 = 15000;
/// Readiness and metrics, as on any machine.
const STATUS: u16 = 15020;

/// A sidecar to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    ip: IpAddr,
    namespace: String,
    account: String,
    services: Vec<String>,
    args: Vec<String>,
    waits: bool,
}

/// A running sidecar; dropping it kills it.
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    builder: Builder,
}

impl Sidecar {
    /// A sidecar of the workload `name` with a service account of the same name.
    pub fn of(namespace: &str, name: &str) -> Builder {
        let ip = ports::loopback();
        let builder = Builder {
            ip,
            namespace: namespace.to_owned(),
            account: name.to_owned(),
            services: Vec::new(),
            args: Vec::new(),
            waits: true,
        };
        let at = |port: u16| SocketAddr::from((ip, port)).to_string();
        builder
            .arg("--namespace", namespace)
            .arg("--workload", name)
            .arg("--service-account", name)
            .arg("--admin", &at(ADMIN))
            .arg("--status", &at(STATUS))
            .arg("--outbound-http", &at(HTTP))
            .arg("--access-log", "text")
    }

    /// Where peers reach the application port `port`.
    pub fn inbound(&self, port: u16) -> SocketAddr {
        (self.builder.ip, port).into()
    }

    /// Where the application reaches `service`, `name.namespace.svc.cluster.local:port` as given to [`Builder::send`].
    pub fn outbound(&self, service: &str) -> SocketAddr {
        let at = self.builder.services.iter().position(|known| known == service);
        let at = at.unwrap_or_else(|| panic!("{service} was not given to send()"));
        (self.builder.ip, FIRST_OUTBOUND + u16::try_from(at).expect("few services")).into()
    }

    /// Where the application reaches any service by the host of its HTTP request.
    pub fn outbound_http(&self) -> SocketAddr {
        (self.builder.ip, HTTP).into()
    }

    /// The admin listener.
    pub fn admin(&self) -> SocketAddr {
        (self.builder.ip, ADMIN).into()
    }

    /// Readiness and metrics.
    pub fn status(&self) -> SocketAddr {
        (self.builder.ip, STATUS).into()
    }

    /// A page of the admin listener, `/config_dump` for example.
    pub async fn admin_page(&self, path: &str) -> String {
        crate::client::raw::get(self.admin(), path, "localhost").await.text()
    }

    /// The metrics as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        crate::client::raw::get(self.status(), "/metrics", "localhost").await.text()
    }

    /// The process: its output, its id.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(self) -> ExitStatus {
        self.process.terminate().await
    }

    /// [`Sidecar::terminate`], for one that may take as long as `deadline`.
    pub async fn terminate_within(self, deadline: Duration) -> ExitStatus {
        self.process.terminate_within(deadline).await
    }

    /// Kills it and starts it again as it was.
    pub async fn crash_and_restart(self) -> Self {
        let builder = self.builder.clone();
        self.process.kill();
        builder.start().await
    }
}

impl Builder {
    /// Takes configuration and certificates from `control`.
    ///
    /// # Panics
    /// When `control` has no authority: a proxy speaks TLS with its control plane only.
    pub fn control(self, control: &Control) -> Self {
        let ca = control.ca().expect("a control plane with an authority");
        let (bundle, token) = (ca.bundle_file(), ca.token_file(&self.namespace, &self.account));
        self.arg("--control-plane", &control.addr().to_string())
            .arg("--trust-bundle", &bundle.to_string_lossy())
            .arg("--token", &token.to_string_lossy())
    }

    /// Receives at [`Sidecar::inbound`] of `port` for the application at `app`; the port's rules come from the inbound
    /// listener.
    pub fn receive(self, port: u16, app: SocketAddr) -> Self {
        let listen = SocketAddr::from((self.ip, port));
        self.arg("--inbound", &format!("{listen}={app}"))
    }

    /// Sends to `service`, a full name with port, from [`Sidecar::outbound`].
    pub fn send(mut self, service: &str) -> Self {
        let port = FIRST_OUTBOUND + u16::try_from(self.services.len()).expect("few services");
        self.services.push(service.to_owned());
        let listen = SocketAddr::from((self.ip, port));
        self.arg("--outbound", &format!("{listen}={service}"))
    }

    /// Adds any flag. One that is given twice counts as given the second time only, except those that may repeat.
    pub fn arg(mut self, flag: &str, value: &str) -> Self {
        const REPEATED: [&str; 3] = ["--inbound", "--outbound", "--pod-ip"];
        let start = format!("{flag}=");
        if !REPEATED.contains(&flag) {
            self.args.retain(|arg| !arg.starts_with(&start));
        }
        self.args.push(start + value);
        self
    }

    /// Does not wait until the proxy is ready: for tests about what happens before that.
    pub fn without_waiting(mut self) -> Self {
        self.waits = false;
        self
    }

    /// Builds (once) and starts the proxy, and waits until it is ready.
    pub async fn start(self) -> Sidecar {
        let args = self.args.clone();
        let process = Process::start("tulle-proxy", "tulle-proxy", |command| {
            command.args(args);
        })
        .await;
        let sidecar = Sidecar { process, builder: self };
        if sidecar.builder.waits {
            sidecar.process.ready(sidecar.status(), "/healthz/ready").await;
        }
        sidecar
    }
}
